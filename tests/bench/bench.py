#!/usr/bin/env python3
"""`make bench`: what mydocker costs, beside its peers, in one run on one machine.

Each case is run by every subject in turn (A B C A B C …, or in blocks), so that a busy moment of
the machine hits all of them. Medians and the ratio to a named peer are printed; budgets of the project stand
beside. *Back to back* has no pause; *isolated* has 100 ms of quiet before each start, which is
what a person at a prompt or a CI step sees (and what cgroup v1 makes slow).

Everything lives on a private data root below /var/tmp and is removed afterwards.
Docker and podman are measured where they are installed and have an image called busybox;
`--prepare` imports it there. Networks (`network.py`) are measured on a private host of their own,
with a neighbour: nothing touches the machine's links.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# No compiled files of root's in the checkout.
sys.dont_write_bytecode = True
import network  # noqa: E402
from measure import QUIET, Namespace, Table, call, interleaved, shims, spawn  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = os.path.join(REPOSITORY, "images", "busybox.tar")


class Subject:
    """One program under measurement: what to call for each case; None where it has no such thing."""

    name = ""
    view = contextlib.nullcontext()

    def run_true(self, _number):
        return None

    def exec_true(self):
        return None

    def close(self):
        """Removes what was made; more may be made afterwards."""

    def leave(self):
        """The end."""


class Engine(Subject):
    """mydocker, docker, podman: Docker's command line."""

    def __init__(self, name, program, network=("--network", "none")):
        self.name, self.program, self.network, self.made = name, program, network, []
        self.box = f"bench-{os.getpid()}-box"

    def on(self, suffix, *network):
        """The same engine with other flags for the network."""
        return Engine(f"{self.name} {suffix}", self.program, network)

    def argv(self, *words):
        return [*self.program, *words]

    def run_true(self, _number):
        return self.argv("run", "--rm", *self.network, "busybox", "true")

    def run_detached(self, number):
        name = f"bench-{os.getpid()}-{number}"
        self.made.append(name)
        return self.argv("run", "-d", *self.network, "--name", name, "busybox", "sleep", "1000")

    def start_box(self):
        call(self.argv("run", "-d", *self.network, "--name", self.box, "busybox", "sleep", "1000"))
        self.made.append(self.box)

    def exec_true(self):
        return self.argv("exec", self.box, "true")

    def remove(self, names):
        return self.argv("rm", "-f", *names)

    def close(self):
        if self.made:
            subprocess.run(self.remove(self.made), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            self.made = []


class Limited(Engine):
    """The same engine with a full set of limits on each container."""

    LIMITS = ("-m", "256m", "--memory-reservation", "128m", "--memory-swap", "512m", "--cpu-shares", "512",
              "--cpu-period", "100000", "--cpu-quota", "100000", "--cpuset-cpus", "0", "--cpuset-mems", "0",
              "--pids-limit", "100")

    def argv(self, *words):
        return super().argv(*(word for part in words for word in ((part, *self.LIMITS) if part == "run" else (part,))))


class Crun(Subject):
    """crun on a prepared bundle: the runtime alone, no image, no log, no state of an engine."""

    name = "crun"

    def __init__(self, scratch, rootfs):
        self.bundle, self.state, self.box = f"{scratch}/bundle", f"{scratch}/crun", f"bench{os.getpid()}"
        os.mkdir(self.bundle)
        os.symlink(rootfs, f"{self.bundle}/rootfs")
        call(["crun", "spec"], cwd=self.bundle)
        self.running = False
        # crun refuses hybrid cgroups when the v2 side has a controller; without its mount it takes
        # the machine for v1, which is where the controllers that matter are.
        unified = "/sys/fs/cgroup/unified"
        if os.path.exists(f"{unified}/cgroup.controllers") and open(f"{unified}/cgroup.controllers", encoding="ascii").read().strip():
            self.view = Namespace.make("mnt", f"umount {unified}")

    def configure(self, *argv):
        with open(f"{self.bundle}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"]["args"], spec["process"]["terminal"] = list(argv), False
        spec["root"]["path"], spec["root"]["readonly"] = f"{self.bundle}/rootfs", True
        with open(f"{self.bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def argv(self, *words):
        return ["crun", "--root", self.state, *words]

    def run_true(self, number):
        return self.argv("run", "--bundle", self.bundle, f"{self.box}-{number}")

    def start_box(self):
        self.configure("sleep", "1000")
        # `run -d` leaves the container with our standard streams: give it others.
        with self.view:
            subprocess.run(self.argv("run", "-d", "--bundle", self.bundle, self.box), check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # What is run from the bundle later is `true` again, and ends.
        self.configure("true")
        self.running = True

    def exec_true(self):
        return self.argv("exec", self.box, "true")

    def close(self):
        if self.running:
            with self.view:
                subprocess.run(self.argv("delete", "-f", self.box), check=False)
            self.running = False

    def leave(self):
        if isinstance(self.view, Namespace):
            self.view.close()


class Unshare(Subject):
    """The kernel's own price: six namespaces and a chroot, nothing else."""

    name = "unshare"

    def __init__(self, rootfs):
        self.rootfs = rootfs

    def run_true(self, _number):
        return ["unshare", "-mpfunir", "chroot", self.rootfs, "true"]


def starts(table, subjects, rounds):
    true = lambda subject, number: subject.run_true(f"{number}")
    table.add("run --rm true, back to back", interleaved(subjects, true, rounds, 0), "≤ crun, aim 5")
    table.add("run --rm true, isolated", interleaved(subjects, true, rounds // 2, QUIET), "≤ crun / 3")


def execs(table, subjects, rounds):
    able = [subject for subject in subjects if hasattr(subject, "start_box")]
    for subject in able:
        subject.start_box()
    command = lambda subject, _number: subject.exec_true()
    table.add("exec true, back to back", interleaved(able, command, rounds, 0), "≤ crun, aim 2.5")
    table.add("exec true, isolated", interleaved(able, command, rounds // 2, QUIET))


def limits(table, engine, rounds):
    """What limits add to a start, and to an exec that joins a limited group; pairs in turns."""
    limited = Limited(f"{engine.name} with limits", engine.program)
    limited.box += "-limited"
    pair = [engine, limited]
    for subject in pair:
        subject.start_box()
    for case, command in [
        ("run --rm true", lambda subject, number: subject.run_true(f"{number}")),
        ("exec true", lambda subject, _number: subject.exec_true()),
    ]:
        taken = interleaved(pair, command, rounds, QUIET)
        table.add(f"{case}, isolated, unlimited", {engine.name: taken[engine.name]})
        table.add("… with every limit, more", {engine.name: taken[limited.name] - taken[engine.name]}, "< 0.5 (v1)")
    for subject in pair:
        subject.close()


def hundred(table, engines, count):
    """run -d, ps and rm -f with many containers; in turns by engine, not by container."""
    detached, total, first, last, listing, removal, memory, watching = {}, {}, {}, {}, {}, {}, {}, {}
    alone = interleaved(engines, lambda engine, number: engine.run_detached(f"alone{number}"), 10, QUIET)
    for engine in engines:
        engine.close()
    for engine in engines:
        took = [spawn(engine.run_detached(number)) for number in range(count)]
        detached[engine.name] = statistics.median(took) * 1000
        total[engine.name] = sum(took)
        first[engine.name] = statistics.median(took[:10]) * 1000
        last[engine.name] = statistics.median(took[-10:]) * 1000
        listing[engine.name] = statistics.median(spawn(engine.argv("ps")) for _ in range(11)) * 1000
        if engine.name == "mydocker":
            memory[engine.name] = statistics.median(size for size, _ in shims())
            watching[engine.name] = stats_round(engine.argv("stats"))
        names, engine.made = list(engine.made), []
        removal[engine.name] = spawn(engine.remove(names))
    table.add("run -d, isolated", alone, "≤ run --rm true")
    table.add(f"run -d, of {count}", detached)
    table.add(f"{count} × run -d", total, "< 1 s", "s")
    table.add("… the first ten", first)
    table.add("… the last ten", last, "as the first")
    table.add(f"ps, {count} running", listing, "< 5")
    table.add(f"rm -f of {count}", removal, "< 0.5 s", "s")
    if watching:
        table.add(f"stats, CPU of a round, {count} running", watching, "< 5")
    if memory:
        table.add("shim, PSS", memory, "≤ 450, aim 250", "KiB", 0)


def stats_round(argv):
    """Milliseconds of CPU that live `stats` takes from one table to the next, opening left out."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:

        def table_shown():
            while not process.stdout.readline().startswith(b"CONTAINER ID"):
                pass
            with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[0]) / 1e6

        table_shown()
        begin, rounds = table_shown(), 5
        for _ in range(rounds):
            end = table_shown()
        process.terminate()
        process.stdout.read()
    return (end - begin) / rounds


def output(table, engines, lines):
    """A million lines of 100 bytes through run, then logs of them."""
    script = f"yes {'x' * 99} | head -n {lines}"
    ran, read, tail, short = {}, {}, {}, {}
    for engine in engines:
        name = f"bench-{os.getpid()}-lines"
        engine.made.append(name)
        # A pipe as a script has it, drained by a program: /dev/null would spare the copy.
        counter = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        words = engine.argv("run", *engine.network, "--name", name, "busybox", "sh", "-c", script)
        ran[engine.name] = spawn(words, counter.stdin.fileno())
        counted(counter, lines * 100, engine.name)
        counter = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        read[engine.name] = spawn(engine.argv("logs", name), counter.stdin.fileno())
        counted(counter, lines * 100, engine.name)
        tail[engine.name] = statistics.median(spawn(engine.argv("logs", "--tail", "10", name)) for _ in range(11)) * 1000
        call(engine.argv("rm", "-f", name))
        call(engine.argv("run", *engine.network, "--name", name, "busybox", "seq", "20"))
        short[engine.name] = statistics.median(spawn(engine.argv("logs", "--tail", "10", name)) for _ in range(11)) * 1000
        engine.close()
    table.add(f"{lines:,} lines of 100 bytes: run", ran, "< 0.5 s", "s")
    table.add("… logs", read, "< 0.3 s", "s")
    table.add("… logs --tail 10", tail, "as of 20 lines")
    table.add("… logs --tail 10 of 20 lines", short)


def counted(counter, expected, name):
    counter.stdin.close()
    got = int(counter.stdout.read())
    counter.wait()
    if got != expected:
        sys.exit(f"bench: {name} passed {got} of {expected} bytes on")


def engine_works(program):
    probe = [*program, "run", "--rm", "--network", "none", "busybox", "true"]
    return subprocess.run(probe, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False, timeout=120).returncode == 0


def subjects_of(arguments, scratch):
    rootfs = f"{scratch}/rootfs"
    os.mkdir(rootfs)
    call(["tar", "-C", rootfs, "-xf", IMAGE])
    found = [Engine("mydocker", [arguments.binary, "--root", f"{scratch}/root"]), Unshare(rootfs)]
    if shutil.which("crun"):
        crun = Crun(scratch, rootfs)
        crun.configure("true")
        found.append(crun)
    for name in ("docker", "podman"):
        if name in arguments.without or not shutil.which(name):
            continue
        if arguments.prepare:
            subprocess.run([name, "import", "-c", 'CMD ["sh"]', IMAGE, "busybox:latest"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if engine_works([name]):
            found.append(Engine(name, [name]))
        else:
            print(f"bench: {name} is installed and does not run busybox: left out (try --prepare)", file=sys.stderr)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the release binary")
    parser.add_argument("--rounds", type=int, default=40, help="starts of each subject (default 40)")
    parser.add_argument("--count", type=int, default=100, help="containers side by side (default 100)")
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of output (default a million)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement of throughput (default 3)")
    parser.add_argument("--without", action="append", default=[], help="leave docker or podman out")
    parser.add_argument("--prepare", action="store_true", help="import busybox into docker and podman")
    parser.add_argument("--only", choices=["starts", "execs", "limits", "hundred", "output", "network"], help="one part only")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: containers need root")
    if not os.path.exists(IMAGE):
        sys.exit("bench: images/busybox.tar is missing: run make images")

    # The look-up of bundled images starts from the checkout.
    os.chdir(REPOSITORY)
    arguments.binary = os.path.realpath(arguments.binary)
    scratch = tempfile.mkdtemp(prefix="mydocker-bench.", dir="/var/tmp")
    subjects = []
    try:
        subjects = subjects_of(arguments, scratch)
        engines = [subject for subject in subjects if isinstance(subject, Engine)]
        table = Table([subject.name for subject in subjects])
        chosen = lambda part: arguments.only in (None, part)
        if chosen("starts"):
            starts(table, subjects, arguments.rounds)
        if chosen("execs"):
            execs(table, subjects, arguments.rounds)
            for subject in subjects:
                subject.close()
        if chosen("limits"):
            limits(table, engines[0], arguments.rounds)
        if chosen("hundred"):
            hundred(table, engines, arguments.count)
        if chosen("output"):
            output(table, engines, arguments.lines)
        table.add("binary", {"mydocker": os.path.getsize(arguments.binary) / 1e6}, "< 6", "MB", 1)
        print(f"{os.uname().sysname} {os.uname().release}, {os.cpu_count()} processors, {time.strftime('%Y-%m-%d')}; medians\n")
        table.print()
        if chosen("network"):
            crun = [subject for subject in subjects if isinstance(subject, Crun)]
            network.measure(engines, crun, arguments)
    finally:
        for subject in subjects:
            subject.close()
            subject.leave()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
