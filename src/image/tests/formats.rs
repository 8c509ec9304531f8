//! Archives as real programs write them: unpacked, they give the tree that was packed; told again, the very bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::tree::{shell, tree};
use crate::image::layer::apply::Limits;
use crate::image::layer::recipe;
use crate::image::layer::unpack::{Keep, Retold, unpack};

/// A tree of all that archives may have; times in whole seconds, as the oldest formats keep them.
fn source(directory: &Path) {
    shell(
        directory,
        "mkdir -p source/dir/sub source/empty; cd source
         echo contents >plain; ln plain hard; ln -s plain link; mkfifo dir/fifo; mknod dir/device c 1 3
         seq 1 100000 >dir/numbers; head -c 512 /dev/urandom >dir/block; chmod 4711 plain; chmod 1777 dir
         for i in $(seq 50); do echo $i >dir/sub/$i; done; chown 1000:50 dir/sub/7
         truncate -s 5M holes; printf middle | dd of=holes bs=1 seek=1M conv=notrunc status=none
         for i in $(seq 1 30); do printf x | dd of=holes bs=1 seek=$((i * 131072)) conv=notrunc status=none; done
         find . -depth -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +",
    );
}

/// Names and attributes that only newer formats have.
fn more(directory: &Path) {
    shell(
        directory,
        "cd source; deep=$(printf 'n%.0s' {1..90})/$(printf 'm%.0s' {1..90}); mkdir -p $deep; touch $deep/$(printf 'o%.0s' {1..200})
         ln -s $(printf 't%.0s' {1..200}) longlink; touch $'\\xff\\xfe'; touch far; chown 2097152:4000000000 far
         find . -depth -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +",
    );
}

fn comes_back(directory: &Path, archive: &str) {
    let bytes = fs::read(directory.join(archive)).unwrap();
    let staging = tempfile::tempdir().unwrap();
    let result = unpack(&bytes[..], staging.path(), Keep::Nothing, &Limits::default())
        .unwrap_or_else(|error| panic!("{archive}: {error:#}"));
    assert_eq!(result.retold, Retold::Exact, "{archive}");
    recipe::verify(staging.path(), &result.diff_id).unwrap_or_else(|error| panic!("{archive}: {error:#}"));
    let (before, after) = (tree(&directory.join("source")), tree(&staging.path().join("diff")));
    for (name, line) in &before {
        assert_eq!(after.get(name), Some(line), "{archive}: {:?}", String::from_utf8_lossy(name));
    }
    assert_eq!(before.len(), after.len(), "{archive}");
    let holes = fs::metadata(staging.path().join("diff/holes")).unwrap();
    if archive.contains("sparse") {
        use std::os::unix::fs::MetadataExt as _;
        assert!(holes.blocks() * 512 < 1 << 20, "{archive}: {} blocks", holes.blocks());
        assert!(bytes.len() < 2 << 20, "{archive} is not sparse");
    }
}

#[test]
fn gnu_tar_in_all_its_formats() {
    let dir = tempfile::tempdir().unwrap();
    source(dir.path());
    let sparse = |version| format!("--format=pax --sparse --sparse-version={version}");
    for (name, options) in [
        ("v7.tar", "--format=v7 --exclude=./dir/fifo --exclude=./dir/device".to_owned()),
        ("ustar.tar", "--format=ustar".to_owned()),
        ("oldgnu.tar", "--format=oldgnu".to_owned()),
        ("oldgnu-sparse.tar", "--format=oldgnu --sparse".to_owned()),
    ] {
        if name == "v7.tar" {
            shell(
                dir.path(),
                "mkdir aside; mv source/dir/fifo source/dir/device aside; touch -d '2021-02-03 04:05:06 UTC' source/dir",
            );
        }
        shell(dir.path(), &format!("tar -C source {options} -cf {name} ."));
        comes_back(dir.path(), name);
        if name == "v7.tar" {
            shell(dir.path(), "mv aside/* source/dir; touch -d '2021-02-03 04:05:06 UTC' source/dir");
        }
    }
    more(dir.path());
    shell(
        dir.path(),
        "cd source; python3 -c 'import os
os.setxattr(\"plain\", \"user.note\", b\"a\\nb=c\")
os.setxattr(\"dir\", \"user.d\", bytes(1500))
os.setxattr(\"dir/block\", \"security.capability\", bytes.fromhex(\"0100000200040000000000000000000000000000\"))'
         touch -d '2021-02-03 04:05:06 UTC' dir plain; touch -d '1960-01-01 00:00:00.5 UTC' dir/block",
    );
    for (name, options) in [
        ("pax.tar", "--format=pax".to_owned()),
        ("pax-sparse-0.0.tar", sparse("0.0")),
        ("pax-sparse-0.1.tar", sparse("0.1")),
        ("pax-sparse-1.0.tar", sparse("1.0")),
    ] {
        shell(dir.path(), &format!("tar -C source --xattrs --xattrs-include='*' {options} -cf {name} ."));
        comes_back(dir.path(), name);
    }
    shell(dir.path(), "cd source; python3 -c 'import os
os.removexattr(\"plain\", \"user.note\"); os.removexattr(\"dir\", \"user.d\"); os.removexattr(\"dir/block\", \"security.capability\")'
        touch -d '1960-01-01 UTC' dir/block; touch -d '2021-02-03 04:05:06 UTC' dir plain");
    for (name, options) in [("gnu.tar", "--format=gnu"), ("gnu-sparse.tar", "--format=gnu --sparse")] {
        shell(dir.path(), &format!("tar -C source {options} -cf {name} ."));
        comes_back(dir.path(), name);
    }
}

#[test]
fn busybox_and_python() {
    let dir = tempfile::tempdir().unwrap();
    source(dir.path());
    shell(dir.path(), "busybox tar -C source -cf busybox.tar .");
    comes_back(dir.path(), "busybox.tar");
    for format in ["USTAR", "GNU", "PAX"] {
        if format == "GNU" {
            more(dir.path());
        }
        let script = format!(
            "python3 -c 'import tarfile; t = tarfile.open(\"{format}.tar\", \"w\", format=tarfile.{format}_FORMAT); t.add(\"source\", \".\"); t.close()'"
        );
        shell(dir.path(), &script);
        comes_back(dir.path(), &format!("{format}.tar"));
    }
}

#[test]
fn programs_in_go() {
    let dir = tempfile::tempdir().unwrap();
    source(dir.path());
    more(dir.path());
    // umoci packs what was added to a bundle's root as Go's archive/tar writes it.
    shell(
        dir.path(),
        "umoci init --layout image; umoci new --image image:latest; umoci unpack --image image:latest bundle
         cp -a source/. bundle/rootfs; umoci repack --image image:latest bundle
         for blob in image/blobs/sha256/*; do if gzip -t $blob 2>/dev/null; then cp $blob layer.tar.gz; fi; done",
    );
    let bytes = fs::read(dir.path().join("layer.tar.gz")).unwrap();
    let staging = tempfile::tempdir().unwrap();
    let result = unpack(&bytes[..], staging.path(), Keep::Nothing, &Limits::default()).unwrap();
    assert_eq!(result.retold, Retold::Exact);
    recipe::verify(staging.path(), &result.diff_id).unwrap();
    let (before, after) = (tree(&dir.path().join("source")), tree(&staging.path().join("diff")));
    for (name, line) in &before {
        assert_eq!(after.get(name), Some(line), "{:?}", String::from_utf8_lossy(name));
    }
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "oci:image:latest", "docker-archive:saved.tar:x:latest"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let saved = fs::read(dir.path().join("saved.tar")).unwrap();
    let staging = tempfile::tempdir().unwrap();
    let result = unpack(&saved[..], staging.path(), Keep::Nothing, &Limits::default()).unwrap();
    recipe::verify(staging.path(), &result.diff_id).unwrap();
}
