"""Sample images for measurements and large tests, as archives that every engine loads.

samples.py DIRECTORY [NAME...]     makes DIRECTORY/NAME.tar where it is not there yet

debian     a debootstrap'ed Debian, one layer
packages   the same with a second layer: packages installed
small      50,000 small files in 500 directories, one layer
layers     busybox and 120 layers that each change something
big        one gibibyte in one layer, half of it compressible

Contents depend on nothing but the packages' versions, so layers have the same digests each time.
"""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile

SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = ["python3-minimal", "git", "curl", "perl", "vim-tiny"]


def run(*argv, **options):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"samples: {' '.join(argv)}: exit code {done.returncode}\n{done.stdout.decode(errors='replace')[-3000:]}")


def archive(path, name, layers, command):
    """A `docker save` archive of an image with these layers (paths of uncompressed tars)."""
    digests = []
    for layer in layers:
        with open(layer, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": f"sample layer {i}"} for i in range(len(layers))],
    }).encode()
    manifest = json.dumps([{
        "Config": f"{hashlib.sha256(config).hexdigest()}.json",
        "RepoTags": [f"{name}:latest"],
        "Layers": [f"{digest}/layer.tar" for digest in digests],
    }]).encode()
    with tarfile.open(path + ".new", "w") as tar:
        for member, content in [(f"{hashlib.sha256(config).hexdigest()}.json", config), ("manifest.json", manifest)]:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for digest, layer in zip(digests, layers):
            tar.add(layer, f"{digest}/layer.tar", filter=plain)
    os.rename(path + ".new", path)


def plain(entry):
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "root", "root"
    return entry


def pack(root, layer, *more):
    run("tar", "--create", "--file", layer, "--sort=name", "--numeric-owner", "--xattrs", *more, "-C", root, ".")


def bootstrap(work):
    """A Debian's root and its layer; kept for the image that goes on from it."""
    root, layer = os.path.join(work, "debian"), os.path.join(work, "debian.layer")
    if not os.path.exists(layer):
        shutil.rmtree(root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", SUITE, root, MIRROR)
        shutil.rmtree(os.path.join(root, "var/cache/apt/archives"))
        os.mkdir(os.path.join(root, "var/cache/apt/archives"))
        pack(root, layer)
    return root, layer


def debian(path, work):
    archive(path, "sample/debian", [bootstrap(work)[1]], ["bash"])


def packages(path, work):
    root, base = bootstrap(work)
    snapshot, layer = os.path.join(work, "snapshot"), os.path.join(work, "packages.layer")
    # What tar has seen is not packed again: the second layer is what the packages changed.
    run("tar", "--create", "--file=/dev/null", f"--listed-incremental={snapshot}", "-C", root, ".")
    run("chroot", root, "apt-get", "install", "-qy", "--no-install-recommends", *PACKAGES,
        env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    run("chroot", root, "apt-get", "clean")
    changed = subprocess.run(["find", ".", "-cnewer", snapshot, "!", "-type", "s"], cwd=root, check=True,
                             stdout=subprocess.PIPE).stdout
    run("tar", "--create", "--file", layer, "--numeric-owner", "--xattrs", "--no-recursion", "-C", root, "-T", "-",
        input=changed)
    shutil.rmtree(root)
    os.remove(snapshot)
    archive(path, "sample/packages", [base, layer], ["bash"])


def written(layer, members):
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.mtime = 1_700_000_000
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return layer


def small(path, work):
    source = random.Random(50_000)

    def members():
        words = [source.randbytes(6).hex() for _ in range(2000)]
        for directory in range(500):
            yield f"files/{directory:03}", None
            for file in range(100):
                text = " ".join(source.choices(words, k=source.randrange(20, 300)))
                yield f"files/{directory:03}/{file:03}.txt", text.encode()

    archive(path, "sample/small", [written(os.path.join(work, "small.layer"), members())], ["true"])


def layers(path, work):
    base = os.path.join(work, "busybox.layer")
    shutil.copy(os.path.join(os.path.dirname(__file__), "../../images/busybox.tar"), base)
    made = [base]
    for i in range(120):
        members = [("layers", None), (f"layers/{i}", f"layer {i}\n".encode()), ("latest", f"{i}\n".encode())]
        if i % 10 == 9:
            members.append((f"layers/.wh.{i - 5}", b""))
        made.append(written(os.path.join(work, f"{i}.layer"), members))
    archive(path, "sample/layers", made, ["sh"])


def big(path, work):
    source, block = random.Random(1), 1 << 20
    text = (b"all work and no play makes a layer large. " * 25000)[:block]
    layer = os.path.join(work, "big.layer")
    with tarfile.open(layer, "w") as tar:
        for i in range(8):
            with tempfile.TemporaryFile(dir=work) as file:
                for _ in range(64):
                    file.write(source.randbytes(block))
                    file.write(text)
                entry = tarfile.TarInfo(f"big/{i}")
                entry.size = file.tell()
                file.seek(0)
                tar.addfile(entry, file)
    archive(path, "sample/big", [layer], ["true"])


SAMPLES = {"debian": debian, "packages": packages, "small": small, "layers": layers, "big": big}


def make(directory, names):
    """Paths of the sample archives, by name."""
    directory = os.path.abspath(directory)
    os.makedirs(directory, exist_ok=True)
    paths = {name: os.path.join(directory, f"{name}.tar") for name in names}
    missing = [name for name in names if not os.path.exists(paths[name])]
    if missing:
        with tempfile.TemporaryDirectory(dir=directory) as work:
            for name in sorted(missing, key=list(SAMPLES).index):
                SAMPLES[name](paths[name], work)
    return paths


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2:] or list(SAMPLES))
