"""What every part of the bench uses: starting programs, namespaces to start them in, medians, tables."""

import ctypes
import glob
import os
import statistics
import subprocess
import sys
import time

QUIET = 0.1


def call(argv, **options):
    """Runs a command that must succeed; its standard output as text."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(argv)}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace")


def spawn(argv, output=subprocess.DEVNULL):
    """Seconds from fork to exit of a command that must succeed.

    posix_spawn, not fork: the interpreter's page tables are not what is measured.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0)]
    target = os.open(os.devnull, os.O_WRONLY) if output is subprocess.DEVNULL else output
    actions.append((os.POSIX_SPAWN_DUP2, target, 1))
    begin = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - begin
    os.close(null)
    if target is not output:
        os.close(target)
    if status != 0:
        sys.exit(f"bench: {' '.join(argv)}: exit code {os.waitstatus_to_exitcode(status)}")
    return took


class Namespace:
    """A namespace to start programs from; entering it is not part of the measured time.

    It is that of the process `pid`; `kind` is its name in /proc/<pid>/ns.
    """

    OPTIONS = {"mnt": "mount", "net": "net"}

    def __init__(self, kind, pid, holder=None):
        self.option, self.pid, self.holder = self.OPTIONS[kind], pid, holder
        self.path, self.own = f"/proc/{pid}/ns/{kind}", f"/proc/thread-self/ns/{kind}"
        self.inside, self.outside = os.open(self.path, os.O_RDONLY), []

    @classmethod
    def make(cls, kind, script):
        """A new one, which `script` prepares; it lasts until it is closed."""
        holder = subprocess.Popen(["unshare", f"--{cls.OPTIONS[kind]}", "sh", "-c", f"{script} && echo ready && exec cat"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if holder.stdout.readline() != b"ready\n":
            sys.exit(f"bench: cannot prepare a {cls.OPTIONS[kind]} namespace: {script}")
        return cls(kind, holder.pid, holder)

    def argv(self, *words):
        """A command line that runs inside."""
        return ["nsenter", f"--{self.option}={self.path}", *words]

    @staticmethod
    def _enter(descriptor):
        directory = os.getcwd()
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0) != 0:
            sys.exit(f"bench: setns: {os.strerror(ctypes.get_errno())}")
        os.chdir(directory)

    def __enter__(self):
        self.outside.append(os.open(self.own, os.O_RDONLY))
        self._enter(self.inside)
        return self

    def __exit__(self, *_):
        descriptor = self.outside.pop()
        self._enter(descriptor)
        os.close(descriptor)

    def close(self):
        os.close(self.inside)
        if self.holder:
            self.holder.stdin.close()
            self.holder.wait()
            self.holder.stdout.close()


def shims():
    """Of each shim of this bench's containers: proportional set size in KiB, open descriptors."""
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{path}/cmdline", "rb") as file:
                if not file.read().startswith(b"mydocker: shim bench-%d-" % os.getpid()):
                    continue
            descriptors = len(os.listdir(f"{path}/fd"))
            with open(f"{path}/smaps_rollup", encoding="ascii") as file:
                found += [(int(line.split()[1]), descriptors) for line in file if line.startswith("Pss:")]
        except OSError:
            continue  # it has just ended
    if not found:
        sys.exit("bench: no process is called `mydocker: shim …`")
    return found


def print_table(heading, body):
    """A table as Markdown has it."""
    print("| " + " | ".join(heading) + " |")
    print("|" + "---|" * len(heading))
    for line in body:
        print("| " + " | ".join(line) + " |")


class Table:
    """Rows of medians in milliseconds (or another unit), one column a subject."""

    def __init__(self, subjects):
        self.subjects, self.rows = subjects, []

    def add(self, case, values, budget="", unit="ms", digits=2):
        self.rows.append((case, values, budget, unit, digits))
        shown = ", ".join(f"{name} {value:.{digits}f}" for name, value in values.items())
        print(f"bench: {case}: {shown} {unit}", file=sys.stderr, flush=True)

    def print(self):
        names = [name for name in self.subjects if any(name in row[1] for row in self.rows)]
        peers = [name for name in names if name != "mydocker"]
        heading = ["case", *names, *[f"ratio to {peer}" for peer in peers], "budget"]
        body = []
        for case, values, budget, unit, digits in self.rows:
            line = [f"{case} ({unit})"]
            line += [f"{values[name]:.{digits}f}" if name in values else "–" for name in names]
            for peer in peers:
                comparable = peer in values and "mydocker" in values and values[peer]
                line.append(f"{values['mydocker'] / values[peer]:.2f}" if comparable else "–")
            body.append([*line, budget])
        print_table(heading, body)


def interleaved(subjects, command, rounds, pause):
    """Median milliseconds of `command(subject, number)` for each subject, taken in turns.

    With a pause the subjects alternate start by start. Without one they alternate in blocks whose
    first start is not counted: a start right after another subject's would not be back to back.
    """
    block = 1 if pause else 11
    taken = {subject.name: [] for subject in subjects}
    number = 0
    while number <= rounds:
        for subject in subjects:
            for position in range(block):
                argv = command(subject, number + position)
                if argv is None:
                    break
                with subject.view:
                    if pause:
                        time.sleep(pause)
                    took = spawn(argv)
                # The first of a block, or of all, warms caches.
                if (position if block > 1 else number) > 0:
                    taken[subject.name].append(took)
        number += block
    return {name: statistics.median(values) * 1000 for name, values in taken.items() if values}
