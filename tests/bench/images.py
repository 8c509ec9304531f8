"""Images beside docker, podman, skopeo with umoci, and the floors of plain programs.

Everything is cold in this sense: each pull has a store of its own, made new, because removing an image and
pulling it again measures how a file system copes with fresh deletions. The registry is on loopback in a
network namespace of the bench's own. CPU time is that of whole processes; for docker its daemons' is added.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import samples
from measure import print_table

ADDRESS = "127.0.0.1:5000"
ACCEPT = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


def run(argv, **options):
    done = subprocess.run(argv, check=False, **{**QUIET, **options})
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(argv)}: exit code {done.returncode}\n{done.stderr.decode(errors='replace')}")


def await_true(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"bench: waited {seconds} s in vain: {what}")
        time.sleep(0.02)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


class Registry:
    """Debian's docker-registry, with the samples in it."""

    def __init__(self, scratch, images):
        config = os.path.join(scratch, "registry.yml")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: {ADDRESS}}}\n"
                       f"storage: {{filesystem: {{rootdirectory: {scratch}/registry}}, delete: {{enabled: true}}}}\n")
        # Nobody reads what it says: a pipe would fill, and it would wait.
        self.process = subprocess.Popen(["docker-registry", "serve", config], **{**QUIET, "stderr": subprocess.DEVNULL})
        await_true("the registry", lambda: answers(f"http://{ADDRESS}/v2/"))
        for name, path in images.items():
            run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"docker-archive:{path}",
                 f"docker://{ADDRESS}/{name}"])

    @staticmethod
    def blobs(name):
        """URLs of an image's layers."""
        request = urllib.request.Request(f"http://{ADDRESS}/v2/{name}/manifests/latest", headers={"Accept": ACCEPT})
        with urllib.request.urlopen(request) as answer:
            layers = json.load(answer)["layers"]
        return [f"http://{ADDRESS}/v2/{name}/blobs/{layer['digest']}" for layer in layers]

    def close(self):
        self.process.kill()
        self.process.wait()


class Ours:
    name = "mydocker"

    def __init__(self, binary=None):
        self.binary = binary

    def begin(self, store):
        self.base = [self.binary, "--root", store]

    def pull(self, image):
        run([*self.base, "pull", "-q", f"{ADDRESS}/{image}"])

    def settled(self):
        """Its flushing, which nobody waits for, must not be part of the next one's time."""
        unsettled = os.path.join(self.base[2], "image/unsettled")
        await_true("layers to be flushed", lambda: not os.path.isdir(unsettled) or not os.listdir(unsettled))

    def cpu(self):
        return 0.0

    def end(self):
        self.settled()

    def sizes(self, store):
        return [os.path.join(store, "overlay2"), os.path.join(store, "image")]


class Docker(Ours):
    name = "docker"

    def begin(self, store):
        self.store, self.socket = store, os.path.join(store, "docker.sock")
        os.makedirs(store)
        config = os.path.join(store, "daemon.json")
        with open(config, "w", encoding="ascii") as file:
            # Whatever the machine's own daemon is told does not count here.
            json.dump({}, file)
        self.daemon = subprocess.Popen(
            ["dockerd", "--config-file", config, "--data-root", f"{store}/data", "--exec-root", f"{store}/exec", "--pidfile", f"{store}/pid",
             "-H", f"unix://{self.socket}", "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=overlay2",
             "--insecure-registry", ADDRESS], **{**QUIET, "stderr": subprocess.DEVNULL})
        self.base = ["docker", "-H", f"unix://{self.socket}"]
        await_true("dockerd", lambda: subprocess.run([*self.base, "version"], check=False, **QUIET).returncode == 0)

    def settled(self):
        pass

    def cpu(self):
        """Of dockerd and its containerd."""
        total = 0.0
        for pid in [self.daemon.pid, *children(self.daemon.pid)]:
            try:
                with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                total += sum(int(field) for field in fields[11:15]) / TICKS
            except OSError:
                continue
        return total

    def end(self):
        self.daemon.terminate()
        self.daemon.wait()

    def sizes(self, store):
        return [os.path.join(store, "data/overlay2"), os.path.join(store, "data/image")]


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


class Podman(Ours):
    name = "podman"

    def begin(self, store):
        # It takes no path of more than fifty characters.
        self.volatile = f"/run/mydocker-bench-{os.getpid()}"
        self.base = ["podman", "--root", f"{store}/root", "--runroot", self.volatile, "--storage-driver", "overlay"]

    def pull(self, image):
        run([*self.base, "pull", "-q", "--tls-verify=false", f"{ADDRESS}/{image}"])

    def settled(self):
        pass

    def end(self):
        # It leaves its overlay directory mounted on itself.
        subprocess.run(["umount", f"{self.base[2]}/overlay"], check=False, **QUIET)
        shutil.rmtree(self.volatile, ignore_errors=True)

    def sizes(self, store):
        return [os.path.join(store, "root")]


class Tools(Ours):
    name = "skopeo+umoci"

    def begin(self, store):
        self.store = store
        os.makedirs(store)

    def pull(self, image):
        layout = f"{self.store}/layout"
        run(["skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", f"docker://{ADDRESS}/{image}",
             f"oci:{layout}:latest"])
        run(["umoci", "unpack", "--image", f"{layout}:latest", f"{self.store}/bundle"])

    def settled(self):
        pass

    def end(self):
        pass


class Floor(Ours):
    """What plain programs take that do less: nothing is verified but by the first, and nothing kept by it."""

    def __init__(self, name, command):
        self.name, self.command = name, command

    def begin(self, store):
        self.store = store
        os.makedirs(store)

    def pull(self, image):
        for url in Registry.blobs(image):
            run(["bash", "-c", f"set -o pipefail; curl -sS -L {url} | {self.command}"], cwd=self.store)

    def settled(self):
        pass

    def end(self):
        pass


def used():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(subject, action):
    """Wall and CPU seconds of an action."""
    os.sync()
    cpu, begin = used() + subject.cpu(), time.perf_counter()
    action()
    wall = time.perf_counter() - begin
    return wall, used() + subject.cpu() - cpu


def pulls(subjects, images, medium, rounds):
    """Medians of wall and CPU seconds per image and subject, taken in turns; sizes of the stores."""
    taken, sizes = {}, {}
    for image in images:
        for number in range(rounds):
            for subject in subjects:
                store = os.path.join(medium, f"{subject.name}-{image}-{number}")
                subject.begin(store)
                wall, cpu = timed(subject, lambda: subject.pull(image))
                taken.setdefault((image, subject.name), []).append((wall, cpu))
                subject.end()
                if hasattr(subject, "sizes") and subject.name in ("mydocker", "docker") and number == 0:
                    paths = [path for path in subject.sizes(store) if os.path.exists(path)]
                    text = subprocess.run(["du", "-scB1", *paths], check=True, stdout=subprocess.PIPE).stdout
                    sizes[image, subject.name] = int(text.split()[-2])
                # On a disk nothing is removed while others are still to be measured there.
                if medium.startswith("/dev/shm"):
                    shutil.rmtree(store, ignore_errors=True)
        shown = ", ".join(f"{s.name} {median(taken, image, s, 0):.2f} s (cpu {median(taken, image, s, 1):.2f})" for s in subjects)
        print(f"bench: pull {image} on {medium}: {shown}", file=sys.stderr, flush=True)
    return taken, sizes


def median(taken, image, subject, which):
    return statistics.median(values[which] for values in taken[image, subject.name])


def print_pulls(subjects, images, taken, medium):
    heading = ["pull, " + medium, *[f"{subject.name}" for subject in subjects], "ratio to igzip, tar", "ratio to docker", "ratio to podman"]
    body = []
    for which, unit in [(0, "s"), (1, "s cpu")]:
        for image in images:
            own = median(taken, image, subjects[0], which)
            line = [f"{image} ({unit})", *[f"{median(taken, image, subject, which):.2f}" for subject in subjects]]
            for peer in ("igzip, tar", "docker", "podman"):
                found = [subject for subject in subjects if subject.name == peer]
                line.append(f"{own / median(taken, image, found[0], which):.2f}" if found else "–")
            body.append(line)
    print_table(heading, body)
    print()


def write_fifty(subject, image):
    """A container that has written 50 MB and has ended."""
    script = "head -c 50000000 /dev/urandom > %s/fifty"
    if subject.name != "podman":
        run([*subject.base, "run", "--name", "fifty", "--net", "none", image, "sh", "-c", script % ""])
        return
    # Its crun wants to raise limits, which a machine without CAP_SYS_RESOURCE forbids: written from outside.
    run([*subject.base, "create", "--name", "fifty", "--net", "none", image, "true"])
    mounted = subprocess.run([*subject.base, "mount", "fifty"], check=True, stdout=subprocess.PIPE).stdout.decode().strip()
    run(["sh", "-c", script % mounted])
    run([*subject.base, "umount", "fifty"])


def archives(subjects, medium, rounds, archive):
    """save, load and commit of 50 MB, in turns."""
    taken = {}
    for number in range(rounds):
        for subject in subjects:
            store = os.path.join(medium, f"archives-{subject.name}-{number}")
            subject.begin(store)
            name = "localhost/sample/debian:latest" if subject.name == "podman" else "sample/debian:latest"
            saved = os.path.join(medium, f"saved-{subject.name}-{number}.tar")
            note = lambda case, action: taken.setdefault((case, subject.name), []).append(timed(subject, action))
            note("load of Debian", lambda: run([*subject.base, "load", "-q", "-i", archive]))
            subject.settled()
            note("save of Debian", lambda: run([*subject.base, "save", "-o", saved, name]))
            os.remove(saved)
            write_fifty(subject, name)
            note("commit of 50 MB", lambda: run([*subject.base, "commit", "-q" if subject.name == "podman" else "--pause=true", "fifty", "committed"]))
            run([*subject.base, "rm", "-f", "fifty"])
            subject.end()
    heading = ["case", *[subject.name for subject in subjects], *[f"ratio to {subject.name}" for subject in subjects[1:]]]
    body = []
    for which, unit in [(0, "ms"), (1, "ms cpu")]:
        for case in dict.fromkeys(case for case, _ in taken):
            values = [1000 * median(taken, case, subject, which) for subject in subjects]
            body.append([f"{case} ({unit})", *[f"{value:.0f}" for value in values], *[f"{values[0] / value:.2f}" for value in values[1:]]])
    print_table(heading, body)
    print()


def memory(ours, image, medium):
    """Peak resident set of a pull, in MB."""
    store = os.path.join(medium, "memory")
    ours.begin(store)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # A process of its own, whose children's peak is that of the pull alone.
        ours.pull(image)
        os.write(write, str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss).encode())
        os._exit(0)
    os.waitpid(child, 0)
    peak = int(os.read(read, 32)) / 1024
    ours.end()
    return peak


def measure(arguments):
    images = arguments.images.split(",")
    paths = samples.make(os.path.join(os.path.dirname(arguments.binary), "../../samples"), images)
    ours, registry = Ours(arguments.binary), None
    floors = [Floor("sha256sum", "sha256sum > /dev/null"), Floor("igzip, tar", "igzip -d | tar -x")]
    peers = [peer for peer in (Docker(), Podman()) if peer.name not in arguments.without]
    subjects = [ours, *peers, Tools(), *floors] if "tools" not in arguments.without else [ours, *peers, *floors]
    media = [medium for medium in ("/dev/shm", "/var/tmp") if medium not in arguments.without]
    scratches = [tempfile.mkdtemp(prefix="mydocker-bench.", dir=medium) for medium in ["/dev/shm", *media]]
    try:
        registry = Registry(scratches[0], paths)
        for scratch in scratches[1:]:
            taken, sizes = pulls(subjects, images, scratch, arguments.rounds)
            print_pulls(subjects, images, taken, os.path.dirname(scratch))
            for image in images:
                if (image, "docker") in sizes:
                    own, other = sizes[image, "mydocker"] / 1e6, sizes[image, "docker"] / 1e6
                    print(f"store of {image}: {own:.0f} MB, docker's {other:.0f} MB, ratio {own / other:.2f}")
            print()
            if "debian" in paths:
                archives([ours, *peers], scratch, arguments.rounds, paths["debian"])
        for image in images:
            print(f"peak memory of a pull of {image}: {memory(ours, image, scratches[1]):.1f} MB")
            shutil.rmtree(os.path.join(scratches[1], "memory"))
    finally:
        if registry:
            registry.close()
        for scratch in scratches:
            shutil.rmtree(scratch, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the release binary")
    parser.add_argument("--rounds", type=int, default=3, help="pulls of each image by each subject (default 3)")
    parser.add_argument("--images", default="debian,packages,small,layers,big", help="samples, separated by commas")
    parser.add_argument("--without", action="append", default=[], help="leave out docker, podman, tools, /dev/shm or /var/tmp")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: images need root")
    arguments.binary = os.path.realpath(arguments.binary)
    # The registry's port, and whatever the engines do to the network, are nobody else's business.
    if os.environ.get("MYDOCKER_BENCH_NETWORK") != "private":
        os.environ["MYDOCKER_BENCH_NETWORK"] = "private"
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])
    measure(arguments)


if __name__ == "__main__":
    main()
