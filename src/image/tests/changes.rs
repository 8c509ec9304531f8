//! What `diff` tells, against real overlays.

use std::fs::File;
use std::os::fd::AsFd;

use super::tree::Overlay;
use crate::image::layer::changes::{Change, changes};
use crate::image::layer::mount_points::MountPoints;

fn told(overlay: &Overlay, lowers: &[&str]) -> Vec<String> {
    let upper = File::open(overlay.path("upper")).unwrap();
    let lowers: Vec<File> = lowers.iter().map(|name| File::open(overlay.path(name)).unwrap()).collect();
    let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
    let letter = |change| match change {
        Change::Changed => 'C',
        Change::Added => 'A',
        Change::Deleted => 'D',
    };
    changes(upper.as_fd(), &lowers, &MountPoints::default())
        .unwrap()
        .into_iter()
        .map(|(change, path)| format!("{} {}", letter(change), String::from_utf8(path).unwrap()))
        .collect()
}

#[test]
fn added_changed_and_deleted() {
    let overlay = Overlay::new(
        "mkdir -p etc/deep/er gone/x again/sub touched; touch etc/{a,b} etc/deep/er/f gone/x/y again/{one,two} again/sub/f",
    );
    assert_eq!(told(&overlay, &["lower"]), [""; 0]);
    overlay.change(
        "echo 1 >etc/a; echo 1 >etc/deep/er/f; rm etc/b; rm -r gone; mkdir new; echo 1 >new/file
         rm -r again; mkdir again; touch again/two; touch again/three; chmod 700 touched",
    );
    assert_eq!(
        told(&overlay, &["lower"]),
        [
            "C /again",
            "D /again/one",
            "D /again/sub",
            "A /again/three",
            "C /again/two",
            "C /etc",
            "C /etc/a",
            "D /etc/b",
            "C /etc/deep",
            "C /etc/deep/er",
            "C /etc/deep/er/f",
            "D /gone",
            "A /new",
            "A /new/file",
            "C /touched",
        ]
    );
}

#[test]
fn what_a_directory_made_anew_hides_is_deleted_at_every_depth() {
    let overlay = Overlay::new("mkdir -p d/s/t; touch d/s/t/a d/s/t/gone d/s/gone d/gone");
    overlay.change("rm -r d; mkdir -p d/s/t; echo 1 >d/s/t/a");
    assert_eq!(
        told(&overlay, &["lower"]),
        ["C /d", "D /d/gone", "C /d/s", "D /d/s/gone", "C /d/s/t", "C /d/s/t/a", "D /d/s/t/gone"]
    );
}

#[test]
fn what_was_copied_up_and_is_as_before_is_no_change() {
    let overlay = Overlay::new("mkdir -p a/b; echo 1 >a/b/f; mkdir c; touch c/d");
    // Opened for writing: copied up, and as before.
    overlay.change(": >>a/b/f; chmod --reference=c c");
    assert_eq!(told(&overlay, &["lower"]), [""; 0]);
    // Nor is it with Docker, to which a directory's time is nothing.
    overlay.change("chmod 600 c/d; chmod 644 c/d; touch c");
    assert_eq!(told(&overlay, &["lower"]), [""; 0]);
    overlay.change("touch -d @0 a/b/f");
    assert_eq!(told(&overlay, &["lower"]), ["C /a", "C /a/b", "C /a/b/f"]);
}

#[test]
fn lower_layers_hide_each_other() {
    let overlay = Overlay::new("mkdir -p d; touch d/seen hidden");
    super::tree::shell(
        overlay.dir.path(),
        "mkdir -p top/d top/o bottom/d bottom/o; touch top/d/top bottom/d/bottom bottom/gone bottom/o/below bottom/hidden
         mknod top/gone c 0 0; python3 -c 'import os; os.setxattr(\"top/o\", \"trusted.overlay.opaque\", b\"y\")'
         mkdir -p upper/d upper/o; touch upper/gone upper/hidden upper/o/below upper/d/bottom upper/d/none
         mknod upper/d/top c 0 0; mknod upper/d/never c 0 0; touch -r upper top bottom; touch -r top/d upper/d",
    );
    assert_eq!(
        told(&overlay, &["top", "bottom"]),
        ["C /d", "C /d/bottom", "A /d/none", "D /d/top", "A /gone", "C /hidden", "C /o", "A /o/below"]
    );
}
