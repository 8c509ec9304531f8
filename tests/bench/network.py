"""The part `network`: starts on a bridge, many of them, throughput, connections, names, and where the time goes.

A private host (a network namespace of the bench), a neighbour of it over a veth pair, and a plain
veth pair between two more namespaces, which is what the kernel gives without an engine. Nothing
touches the machine's own links; docker, where its daemon runs, uses the daemon's.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

from measure import QUIET, Namespace, call, interleaved, print_table, shims, spawn
from peers import EVERYWHERE, question

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers.py")
HOST, NEIGHBOUR, LEFT, RIGHT = "192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2"
# iperf3 in a container, published as it is, and on the host.
IPERF, IPERF_HOST = 5201, 5202
# Short connections: a port for each way to the container. Two ways that share one (the host by the container's
# address, and through 127.0.0.1 by masquerading) would meet each other's connections in TIME_WAIT: other time
# stamps from the same address and port, so that a SYN is dropped and sent again a second later (RFC 7323, section 5.3).
SHORT_BESIDE, SHORT_NEIGHBOUR, SHORT_DIRECT, SHORT_LOCAL = SHORT = range(7000, 7004)
REPEATS = 3
QUERIES = 2000
EXPLAINED = 30


class Rows:
    """A table, said on standard error row by row as it comes into being."""

    def __init__(self, *heading):
        self.heading, self.rows = heading, []

    def add(self, *cells):
        self.rows.append(cells)
        print("bench: " + ", ".join(f"{title} {cell}".strip() for title, cell in zip(self.heading, cells) if cell != "–"),
              file=sys.stderr, flush=True)

    def print(self):
        print()
        print_table(self.heading, self.rows)


def measure(engines, crun, arguments):
    with contextlib.ExitStack() as stack:
        made = lambda: stack.enter_context(contextlib.closing(Namespace.make("net", "ip link set lo up")))
        host, neighbour, left, right = made(), made(), made(), made()
        pair(host, "out0", HOST, neighbour, "eth0", NEIGHBOUR)
        pair(left, "eth0", LEFT, right, "eth0", RIGHT)
        stack.enter_context(host)
        mydocker, others = engines[0], engines[1:]
        none, bridge = mydocker.on("none", "--network", "none"), mydocker.on("bridge")
        port = mydocker.on("-p", "-p", "8080:80")
        for subject in (none, bridge, port):
            stack.callback(subject.close)
        tables = [starts(none, bridge, port, crun, others, arguments.rounds)]
        tables.append(hundred(none, bridge, others, arguments.count))
        tables.append(traffic(bridge, host, neighbour, left, right, arguments.seconds))
        tables.append(breakdown(none, bridge, port))
        for table in tables:
            table.print()


def pair(one, device, address, other, other_device, other_address):
    """A veth pair between two namespaces, with addresses, up."""
    call(["ip", "link", "add", device, "netns", str(one.pid), "type", "veth",
          "peer", "name", other_device, "netns", str(other.pid)])
    for namespace, name, own in [(one, device, address), (other, other_device, other_address)]:
        call(namespace.argv("ip", "address", "add", f"{own}/24", "dev", name))
        call(namespace.argv("ip", "link", "set", name, "up"))


def starts(none, bridge, port, crun, others, rounds):
    """Starts without a network, on the bridge, with a published port; crun's, which has a loopback device only."""
    peers = [*crun, *(other.on("bridge") for other in others)]
    table = Rows("case (ms)", "none", "bridge", "more", "-p 8080:80", "more than bridge", *(peer.name for peer in peers),
                 *(f"bridge to {peer.name}" for peer in peers), "budget")
    command = lambda subject, number: subject.run_true(f"net-{number}")
    cases = [("back to back", rounds, 0), ("isolated", rounds // 2, QUIET)]
    for case, count, pause in cases:
        taken = interleaved([none, bridge, port, *peers], command, count, pause)
        alone, on, published = (taken[subject.name] for subject in (none, bridge, port))
        table.add(f"run --rm true, {case}", f"{alone:.2f}", f"{on:.2f}", f"{on - alone:.2f}", f"{published:.2f}",
                  f"{published - on:.2f}", *(f"{taken[peer.name]:.2f}" for peer in peers),
                  *(f"{on / taken[peer.name]:.2f}" for peer in peers), "≤ 2 more than none; ≤ crun; -p: one iptables-restore more")
    return table


def devices():
    """Names of the devices in the calling thread's namespace."""
    with open("/proc/thread-self/net/dev", encoding="ascii") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


def hundred(none, bridge, others, count):
    """run -d, ps, rm -f with many containers on the bridge, beside as many without a network."""
    subjects = [none, bridge, *(other.on("bridge") for other in others)]
    table = Rows("case", *(subject.name for subject in subjects), "budget")
    columns = []
    for subject in subjects:
        took = [spawn(subject.run_detached(number)) for number in range(count)]
        listing = statistics.median(spawn(subject.argv("ps")) for _ in range(11))
        own = subject in (none, bridge)
        costs = shims() if own else []
        names, subject.made = list(subject.made), []
        begin = time.perf_counter()
        removal = spawn(subject.remove(names))
        # Docker's are the machine's.
        while own and any(name.startswith("veth") for name in devices()):
            if time.perf_counter() - begin > 60:
                sys.exit("bench: a veth outlives its container by a minute")
            time.sleep(0.001)
        gone = time.perf_counter() - begin
        ten = lambda part: f"{statistics.median(part) * 1000:.2f}"
        columns.append([
            f"{sum(took):.2f}", ten(took), ten(took[:10]), ten(took[-10:]), f"{listing * 1000:.2f}", f"{removal:.2f}",
            f"{gone:.2f}" if subject is bridge else "–",
            f"{statistics.median(size for size, _ in costs):.0f}" if costs else "–",
            f"{statistics.median(descriptors for _, descriptors in costs):.0f}" if costs else "–",
        ])
    cases = [
        (f"{count} × run -d (s)", "< 1.5 s"),
        ("… the median of them (ms)", ""),
        ("… the first ten", ""),
        ("… the last ten", "as the first"),
        (f"ps, {count} running (ms)", "< 5"),
        (f"rm -f of {count} (s)", "< 0.5 s"),
        ("… until the last veth is gone (s)", ""),
        ("shim, PSS (KiB)", "≤ 450"),
        ("shim, descriptors", ""),
    ]
    for number, (case, budget) in enumerate(cases):
        table.add(case, *(column[number] for column in columns), budget)
    return table


@contextlib.contextmanager
def serving(namespace, port, *argv, protocol="tcp"):
    """A server in a namespace, from when it listens on `port` to the end of the block."""
    server = subprocess.Popen(namespace.argv(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not bound(namespace.pid, protocol, port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {' '.join(argv)} does not listen on {port}")
            time.sleep(0.005)
        yield
    finally:
        server.kill()
        server.wait()


def bound(pid, protocol, port):
    """Whether somebody listens on `port` in the namespace of `pid` (proc(5), net/tcp)."""
    state = "0A" if protocol == "tcp" else "07"
    with open(f"/proc/{pid}/net/{protocol}", encoding="ascii") as file:
        fields = [line.split() for line in file.readlines()[1:]]
    return any(int(line[1].split(":")[1], 16) == port and line[3] == state for line in fields)


def container(bridge, name, *flags):
    """A container that does nothing; its network namespace and its address."""
    box = f"bench-{os.getpid()}-{name}"
    bridge.made.append(box)
    call(bridge.argv("run", "-d", *flags, "--name", box, "busybox", "sleep", "100000"))
    template = "{{.State.Pid}} {{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}}"
    pid, address, gateway = call(bridge.argv("inspect", "-f", template, box)).split()
    return Namespace("net", int(pid)), box, address, gateway


def traffic(bridge, host, neighbour, left, right, seconds):
    """Throughput, connections, names: all with the same two containers."""
    table = Rows("case", "median", "lowest – highest", "to what", "ratio", "budget")
    with contextlib.ExitStack() as stack:
        stack.callback(bridge.close)
        one, _, _, gateway = container(bridge, "one", "--dns", HOST)
        stack.callback(one.close)
        two, name, address, _ = container(bridge, "two", "-p", f"{IPERF}:{IPERF}", "-p", f"{SHORT_NEIGHBOUR}:{SHORT_NEIGHBOUR}", "-p", f"{SHORT_LOCAL}:{SHORT_LOCAL}")
        stack.callback(two.close)
        if shutil.which("iperf3"):
            for server, port in [(two, IPERF), (right, IPERF), (host, IPERF_HOST)]:
                stack.enter_context(serving(server, port, "iperf3", "-4", "-s", "-p", str(port)))
            ways = [
                ("plain veth", left, RIGHT, IPERF, None, ""),
                ("container → container", one, address, IPERF, "plain veth", "≥ 0.95"),
                ("container → host, by its gateway", one, gateway, IPERF_HOST, "plain veth", "≥ 0.95"),
                ("neighbour → published port", neighbour, HOST, IPERF, "plain veth", ""),
                ("host → container's address", host, address, IPERF, "plain veth", "≥ 0.95"),
                ("host → 127.0.0.1:published", host, "127.0.0.1", IPERF, "host → container's address", "≥ 0.90"),
            ]
            compare(table, "iperf3, ", "Gbit/s", 2, ways, lambda *way: throughput(*way, seconds))
        else:
            print("bench: iperf3 is not installed: no throughput", file=sys.stderr)
        for server, port in [(right, SHORT_BESIDE), *((two, port) for port in SHORT)]:
            stack.enter_context(serving(server, port, sys.executable, PEERS, "accept", str(port)))
        ways = [
            ("plain veth", left, RIGHT, SHORT_BESIDE, None, ""),
            ("container → container", one, address, SHORT_BESIDE, "plain veth", ""),
            ("neighbour → published port", neighbour, HOST, SHORT_NEIGHBOUR, "plain veth", ""),
            ("host → container's address", host, address, SHORT_DIRECT, "plain veth", ""),
            ("host → 127.0.0.1:published", host, "127.0.0.1", SHORT_LOCAL, "host → container's address", "≥ 0.90"),
        ]
        compare(table, "new connections, ", "/s", 0, ways, connections)
        stack.enter_context(serving(host, 53, sys.executable, PEERS, "answer", HOST, protocol="udp"))
        names(table, host, one, name, address)
    return table


def compare(table, what, unit, digits, ways, measured):
    """Each way in turn, several times; medians, and the ratio to the way that is named."""
    taken = {way[0]: [] for way in ways}
    for _ in range(REPEATS):
        for case, namespace, address, port, _, _ in ways:
            taken[case].append(measured(namespace, address, port))
    for case, _, _, _, reference, budget in ways:
        values = taken[case]
        middle = statistics.median(values)
        ratio = f"{middle / statistics.median(taken[reference]):.2f}" if reference else "–"
        table.add(f"{what}{case} ({unit})", f"{middle:.{digits}f}", f"{min(values):.{digits}f} – {max(values):.{digits}f}",
                  reference or "–", ratio, budget)


def throughput(namespace, address, port, seconds):
    """Gbit/s of one stream that `namespace` sends. Where there are two processors, each end has its own."""
    processors = sorted(os.sched_getaffinity(0))
    ends = ["-A", f"{processors[0]},{processors[1]}"] if len(processors) > 1 else []
    text = call(namespace.argv("iperf3", "-4", "-J", "-t", str(seconds), "-c", address, "-p", str(port), *ends))
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9


def connections(namespace, address, port):
    """Connections a second, made and ended one after the other."""
    return float(call(namespace.argv(sys.executable, PEERS, "connect", address, str(port), "2")))


def names(table, host, inside, name, address):
    """Answers of the resolver that a container finds, its own and forwarded ones."""
    outside = lambda number: f"n{number}.example.com"
    own = ask(inside, "127.0.0.11", lambda _: name, address)
    direct = ask(host, HOST, outside, EVERYWHERE)
    forwarded = ask(inside, "127.0.0.11", outside, EVERYWHERE)
    for case, (middle, slow), reference, budget in [
        ("DNS, name of a container", own, None, "< 0.3 ms"),
        ("DNS, the upstream itself, asked by the host", direct, None, ""),
        ("DNS, forwarded to it", forwarded, direct, ""),
    ]:
        table.add(f"{case} (ms)", f"{middle:.3f}", f"p99 {slow:.3f}", "the upstream itself" if reference else "–",
                  f"{middle / reference[0]:.2f}" if reference else "–", budget)


def ask(namespace, server, name_of, expected):
    """Median and 99th percentile, in milliseconds, of the time from a query to its answer."""
    # A socket stays in the namespace in which it was made.
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((server, 53))
        taken = []
        for number in range(QUERIES + 1):
            query = question(number, name_of(number))
            begin = time.perf_counter()
            client.send(query)
            answer = client.recv(4096)
            taken.append(time.perf_counter() - begin)
            if answer[:2] != query[:2] or socket.inet_aton(expected) not in answer:
                sys.exit(f"bench: {server} does not answer {expected} for {name_of(number)}: {answer.hex()}")
    taken = sorted(taken[1:])
    return statistics.median(taken) * 1000, taken[len(taken) * 99 // 100] * 1000


def breakdown(none, bridge, port):
    """Each step of isolated starts, as `--explain=json` tells it; the longest on the bridge first."""
    subjects = [none, bridge, port]
    steps, ends = {}, {subject.name: [] for subject in subjects}
    for number in range(EXPLAINED + 1):
        for subject in subjects:
            time.sleep(QUIET)
            told = explained(subject)
            if number == 0:
                continue
            ends[subject.name].append(max(step["at"] + step["took"] for step in told))
            summed = {}
            for step in told:
                # Names that hold an id or a name made of one differ from run to run.
                key = (re.sub(r"\b(veth)?[0-9a-f]{7,}\b", "…", step["step"]), step["process"])
                at, took = summed.get(key, (step["at"], 0))
                summed[key] = (at, took + step["took"])
            for key, told_once in summed.items():
                steps.setdefault(key, {}).setdefault(subject.name, []).append(told_once)
    table = Rows("step (µs)", "process", "at", "took, bridge", "p90", "none", "-p 8080:80")
    middle = lambda values: statistics.median(values) if values else None
    shown = lambda value: "–" if value is None else f"{value:.0f}"
    lines = []
    for (step, process), by in steps.items():
        took = {name: [value for _, value in values] for name, values in by.items()}
        medians = {subject.name: middle(took.get(subject.name)) for subject in subjects}
        where = bridge.name if bridge.name in by else next(iter(by))
        # A step of few runs (another file system, a lock that somebody held) has no median worth the name.
        if len(by[where]) < EXPLAINED // 2:
            continue
        slow = sorted(took[where])[len(took[where]) * 9 // 10]
        lines.append((medians[where], [step, process, shown(middle([at for at, _ in by[where]])), shown(medians[bridge.name]),
                                       shown(slow), shown(medians[none.name]), shown(medians[port.name])]))
    for _, cells in sorted(lines, key=lambda line: -line[0]):
        table.rows.append(cells)
    last = {name: middle(values) for name, values in ends.items()}
    slow = sorted(ends[bridge.name])[len(ends[bridge.name]) * 9 // 10]
    table.add("from the first to the end of the last", "", "0", shown(last[bridge.name]), shown(slow),
              shown(last[none.name]), shown(last[port.name]))
    return table


def explained(subject):
    """The steps of one start."""
    argv = subject.argv("run", "--rm", "--explain=json", *subject.network, "busybox", "true")
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(argv)}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return json.loads(done.stderr)
