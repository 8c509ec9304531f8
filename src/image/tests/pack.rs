//! Packing: what a real overlay keeps, as a layer, and unpacked again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tree::{Overlay, shell, tree};
use crate::image::layer::apply::Limits;
use crate::image::layer::mount_points::MountPoints;
use crate::image::layer::pack::{pack_tree, pack_upper};
use crate::image::layer::unpack::{Keep, Retold, unpack};

fn packed(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack_upper(File::open(root).unwrap().as_fd(), &[], &MountPoints::default(), &mut bytes).unwrap();
    bytes
}

fn unpacked(bytes: &[u8]) -> tempfile::TempDir {
    let staging = tempfile::tempdir().unwrap();
    let result = unpack(bytes, staging.path(), Keep::Nothing, &Limits::default()).unwrap();
    assert_eq!((result.retold, result.has_end), (Retold::Exact, true));
    staging
}

/// Names in an archive, as GNU tar reads them.
fn listed(bytes: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar").args(["-t"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = tar.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).unwrap());
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    })
}

#[test]
fn an_upper_directory_comes_back_as_it_was() {
    let overlay = Overlay::new(
        "mkdir -p gone/deep kept/sub again; touch gone/deep/f kept/sub/{a,b} again/old file; echo 1 >grown",
    );
    overlay.change(
        "rm -r gone; rm kept/sub/a file; rm -r again; mkdir again; echo new >again/new; echo 2 >>grown
         mkdir -p new/dir; cd new
         printf '%s' contents >plain; ln plain hard; ln plain dir/hard; ln -s /nowhere link; ln link hardlink
         mkfifo fifo; mknod device c 1 3; mknod disk b 259 70000; chmod 4755 plain; chmod 3770 dir
         truncate -s 3M holes; echo end >>holes; truncate -s 0 empty
         touch -d '1969-12-31 23:59:58.25 UTC' old; touch -d '2300-01-01 UTC' late; touch -d '2020-01-01 00:00:00.123456789 UTC' fine
         touch $'non-utf8-\\xff' $'line\\nfeed'; touch $(printf 'x%.0s' {1..255})
         part=$(printf 'y%.0s' {1..90}); deep=$part/$part/$part; mkdir -p $deep; touch $deep/z
         ln -s $(printf 't%.0s' {1..300}) longlink; ln $deep/z farlink
         chown 3000000:4000000000 plain; chown -h 7:8 link; touch notes; chown 5:6 notes
         python3 -c 'import os
os.setxattr(\"notes\", \"user.note\", b\"a\\nb\")
os.setxattr(\"notes\", \"security.capability\", bytes.fromhex(\"0100000200040000000000000000000000000000\"))
os.setxattr(\"dir\", \"user.d\", bytes(2000))
os.setxattr(\"dir\", \"system.posix_acl_default\", bytes.fromhex(\"0200000001000700ffffffff04000500ffffffff20000500ffffffff\"))
import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'",
    );
    let upper = overlay.path("upper");
    let bytes = packed(&upper);
    let staging = unpacked(&bytes);
    let (before, after) = (tree(&upper), tree(&staging.path().join("diff")));
    for (name, line) in &before {
        assert_eq!(after.get(name), Some(line), "{:?}", String::from_utf8_lossy(name));
    }
    assert_eq!(before.len(), after.len());
    assert!(before.values().any(|line| line == "whiteout"), "{before:?}");

    let names = listed(&bytes);
    for name in [".wh.gone", ".wh.file", "kept/sub/.wh.a", "again/", "again/.wh..wh..opq", "again/new"] {
        assert!(names.iter().any(|listed| listed == name), "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("socket") || name == "./" || name == "/"), "{names:?}");
    let opaque = names.iter().position(|name| name == "again/.wh..wh..opq").unwrap();
    assert_eq!((&names[opaque - 1][..], &names[opaque + 1][..]), ("again/", "again/new"));
}

#[test]
fn a_socket_hides_what_it_replaced() {
    let overlay = Overlay::new("mkdir -p d/e; touch f");
    let bind = |name: &str| {
        format!("rm -rf {name}; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"{name}\")'")
    };
    overlay.change(&format!("{}; {}; {}", bind("d/e"), bind("f"), bind("new")));
    let lower = File::open(overlay.path("lower")).unwrap();
    let mut bytes = Vec::new();
    let upper = File::open(overlay.path("upper")).unwrap();
    pack_upper(upper.as_fd(), &[lower.as_fd()], &MountPoints::default(), &mut bytes).unwrap();
    assert_eq!(listed(&bytes), ["d/", "d/.wh.e", ".wh.f"]);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        "mkdir one; cd one; for i in $(shuf -i 1-200); do echo $i >f$i; done; mkdir -p d/e; ln f1 d/e/h; ln f1 a
         touch -d '2020-01-01' d/e d .; cd ..; cp -a one two; touch -r one/d/e two/d/e; mkdir rest; cp -a one rest",
    );
    let one = packed(&dir.path().join("one"));
    assert!(one == packed(&dir.path().join("two")));
    let names = listed(&one);
    // A directory's members come right behind it.
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    // Python's reader finds nothing wrong either.
    fs::write(dir.path().join("one.tar"), &one).unwrap();
    shell(dir.path(), "python3 -c 'import tarfile; assert len(tarfile.open(\"one.tar\").getmembers()) == 204'");
}

#[test]
fn a_root_is_packed_as_it_is_seen() {
    let overlay = Overlay::new("mkdir a b; echo 1 >a/x; echo 2 >b/y; ln a/x a/z");
    overlay.change("rm b/y; echo 3 >b/.wh.kept; mkdir mounted; touch file; mkdir -p deep/$(printf 'd/%.0s' {1..300})");
    let merged = overlay.path("merged");
    let none = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", merged.join("mounted"), "tmpfs", none, None).unwrap();
    fs::write(merged.join("mounted/secret"), "secret").unwrap();
    rustix::mount::mount_bind("/etc/passwd", merged.join("file")).unwrap();
    let mut bytes = Vec::new();
    let result = pack_tree(File::open(&merged).unwrap().as_fd(), &mut bytes);
    for name in ["mounted", "file"] {
        rustix::mount::unmount(merged.join(name), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    result.unwrap();
    let names = listed(&bytes);
    let expected = ["a/", "a/x", "a/z", "b/", "b/.wh.kept"];
    assert_eq!(names[..5], expected);
    assert_eq!(names.last().unwrap(), "mounted/");
    assert!(names.contains(&"file".to_owned()));
    assert_eq!(names.len(), 5 + 1 + 300 + 1 + 1);
    let find = |wanted: &str| {
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .filter(|entry| entry.path_bytes() == wanted.as_bytes())
            .map(|entry| (entry.header().entry_type(), entry.size()))
            .next()
    };
    assert_eq!(find("file"), Some((tar::EntryType::Regular, 0)));
    assert_eq!(find("a/x"), Some((tar::EntryType::Regular, 2)));
    assert_eq!(find("a/z"), Some((tar::EntryType::Link, 0)));
}

#[test]
fn what_a_layer_cannot_say_is_an_error() {
    for attribute in ["redirect", "metacopy"] {
        let dir = tempfile::tempdir().unwrap();
        shell(
            dir.path(),
            &format!("mkdir d; python3 -c 'import os; os.setxattr(\"d\", \"trusted.overlay.{attribute}\", b\"x\")'"),
        );
        let error = pack_upper(File::open(dir.path()).unwrap().as_fd(), &[], &MountPoints::default(), &mut io::sink())
            .unwrap_err();
        assert!(format!("{error:#}").contains("redirect_dir or metacopy"), "{error:#}");
    }
    // A name that would hide another when it is unpacked, and overlayfs's own attributes, do not get in.
    let dir = tempfile::tempdir().unwrap();
    shell(
        dir.path(),
        "touch .wh.secret x; python3 -c 'import os
for name in (\"trusted.overlay.origin\", \"trusted.overlay.impure\", \"trusted.other\", \"user.overlay.opaque\"): os.setxattr(\"x\", name, b\"y\")'",
    );
    let bytes = packed(dir.path());
    assert_eq!(listed(&bytes), ["x"]);
    assert!(!bytes.windows(5).any(|window| window == b"xattr"));
}

/// A sink that changes the tree when the first bytes of contents come.
struct Meddler<'a, F: FnMut()> {
    bytes: &'a mut Vec<u8>,
    meddle: Option<F>,
}

impl<F: FnMut()> Write for Meddler<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut meddle) = self.meddle.take() {
            meddle();
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn files_that_change_meanwhile_do_not_break_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // Each larger than what is gathered before it is written.
    fs::write(path("a"), vec![b'a'; 600_000]).unwrap();
    fs::write(path("b"), vec![b'b'; 600_000]).unwrap();
    fs::write(path("c"), vec![b'c'; 10]).unwrap();
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/e"), "e").unwrap();
    fs::write(path("z"), "z").unwrap();
    let mut bytes = Vec::new();
    let meddle = || {
        File::options().write(true).open(path("a")).unwrap().set_len(300_000).unwrap();
        fs::write(path("b"), vec![b'B'; 700_000]).unwrap();
        fs::remove_file(path("c")).unwrap();
        fs::remove_dir_all(path("d")).unwrap();
        std::os::unix::fs::symlink("/etc", path("d")).unwrap();
    };
    pack_upper(
        File::open(dir.path()).unwrap().as_fd(),
        &[],
        &MountPoints::default(),
        &mut Meddler { bytes: &mut bytes, meddle: Some(meddle) },
    )
    .unwrap();
    assert_eq!(listed(&bytes), ["a", "b", "z"]);
    let mut archive = tar::Archive::new(&bytes[..]);
    let contents: Vec<Vec<u8>> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut contents = Vec::new();
            entry.unwrap().read_to_end(&mut contents).unwrap();
            contents
        })
        .collect();
    assert_eq!(contents[0].len(), 600_000);
    assert!(
        contents[0][..262_000].iter().all(|byte| *byte == b'a') && contents[0][300_000..].iter().all(|byte| *byte == 0)
    );
    assert_eq!(contents[1], vec![b'B'; 700_000]);
    assert_eq!(contents[2], b"z");
}

#[test]
fn a_sink_that_fails_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), vec![1; 1 << 20]).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error =
        pack_upper(File::open(dir.path()).unwrap().as_fd(), &[], &MountPoints::default(), &mut { full }).unwrap_err();
    assert!(format!("{error:#}").contains("No space left"), "{error:#}");
}
