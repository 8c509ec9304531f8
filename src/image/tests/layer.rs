//! The layer applier, mostly against archives that mean harm.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tar::EntryType;

use super::jail::Jail;
use super::{Member, Tar, names};
use crate::image::layer::apply::{Limits, Retold};

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let size = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(size);
    Some(value)
}

const OPAQUE: &str = "trusted.overlay.opaque";

#[test]
fn files_get_contents_owners_modes_and_times() {
    let jail = Jail::new();
    let file =
        || Member { name: b"bin/su", mode: 0o4755, content: b"x", owner: (1000, 4_000_000_000), ..Member::default() };
    let tar = Tar::new()
        .directory("./", 0o751)
        .directory("bin/", 0o2750)
        .add(file())
        .symlink("bin/link", "/nowhere")
        .add(Member { name: b"bin/hard", kind: EntryType::Link, link: b"/bin/su", content: b"", ..file() })
        .directory("tmp", 0o1777)
        .file("tmp/late", b"");
    let bytes = tar.bytes();
    let applied = jail.apply_bytes(&bytes, &Limits::default()).unwrap();
    assert_eq!(applied.retold, Retold::Exact);
    assert_eq!(applied.size, 1);
    assert!(applied.has_end);
    let su = fs::metadata(jail.path("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 1000, 4_000_000_000, 2));
    assert_eq!(fs::metadata(jail.path("bin/hard")).unwrap().ino(), su.ino());
    assert_eq!(fs::read_link(jail.path("bin/link")).unwrap(), Path::new("/nowhere"));
    for (name, mode) in [("", 0o751), ("bin", 0o2750), ("tmp", 0o1777), ("bin/su", 0o4755), ("bin/link", 0o777)] {
        let metadata = fs::symlink_metadata(jail.path(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (mode, 1_000_000_000), "{name:?}");
    }
}

#[test]
fn device_nodes_and_fifos() {
    let jail = Jail::new();
    let node = |name: &'static [u8], kind, device| Member { name, kind, device, mode: 0o666, ..Member::default() };
    jail.apply(
        Tar::new()
            .add(node(b"dev/null", EntryType::Char, (1, 3)))
            .add(node(b"dev/disk", EntryType::Block, (259, 1000)))
            .add(node(b"dev/fifo", EntryType::Fifo, (0, 0))),
    )
    .unwrap();
    let null = fs::metadata(jail.path("dev/null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    let disk = fs::metadata(jail.path("dev/disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(disk.rdev(), rustix::fs::makedev(259, 1000));
    assert!(fs::metadata(jail.path("dev/fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn long_names_in_both_forms() {
    let jail = Jail::new();
    let long = format!("{}/{}/{}", "a".repeat(200), "b".repeat(200), "c".repeat(255));
    let mut gnu = Tar::new();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o600);
    gnu.builder.append_data(&mut header, &long, &b"g"[..]).unwrap();
    let other = long.replace('c', "d");
    jail.apply(
        gnu.pax(&[("path", other.as_bytes())])
            .file("short", b"p")
            .pax(&[("linkpath", other.as_bytes())])
            .hard_link("e", "short"),
    )
    .unwrap();
    assert_eq!(fs::read(jail.path(&long)).unwrap(), b"g");
    assert_eq!(fs::read(jail.path(&other)).unwrap(), b"p");
    assert_eq!(fs::read(jail.path("e")).unwrap(), b"p");
    assert!(!jail.path("short").exists());
    jail.refuses(Tar::new().pax(&[("path", "x".repeat(256).as_bytes())]).file("x", b""), "File name too long");
    jail.refuses(Tar::new().pax(&[("path", "x/".repeat(3000).as_bytes())]).file("x", b""), "longer than 4095");
}

#[test]
fn pax_owner_time_and_attributes() {
    let jail = Jail::new();
    // cap_dac_override and cap_fowner: the value has a line feed in it.
    let capability = b"\x01\x00\x00\x02\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let records: &[(&str, &[u8])] = &[
        ("uid", b"70000"),
        ("gid", b"3000000000"),
        ("mtime", b"1700000000.25"),
        ("SCHILY.xattr.security.capability", capability),
        ("SCHILY.xattr.user.note", b"a\nb"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"x"),
    ];
    let directory: &[(&str, &[u8])] =
        &[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.note", b"d")];
    jail.apply(Tar::new().pax(records).file("ping", b"x").pax(directory).directory("d", 0o755)).unwrap();
    let ping = jail.path("ping");
    let metadata = fs::metadata(&ping).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (70_000, 3_000_000_000));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_700_000_000, 250_000_000));
    assert_eq!(xattr(&ping, "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&ping, "user.note").as_deref(), Some(&b"a\nb"[..]));
    for name in ["trusted.overlay.redirect", "user.overlay.opaque"] {
        assert_eq!(xattr(&ping, name), None, "{name}");
    }
    assert_eq!(xattr(&jail.path("d"), OPAQUE), None);
    assert_eq!(xattr(&jail.path("d"), "user.note").as_deref(), Some(&b"d"[..]));
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    let jail = Jail::new();
    jail.apply(
        Tar::new()
            .file("a/.wh.gone", b"")
            .file("b/.wh..wh..opq", b"")
            .file("b/kept", b"1")
            // The layer's own things stay seen, in either order, and go on hiding what is below.
            .file("c/.wh.file", b"")
            .file("c/file", b"1")
            .directory("c/dir", 0o755)
            .file("c/dir/x", b"1")
            .file("c/.wh.dir", b"")
            .file("c/.wh.late", b"")
            .directory("c/late", 0o755)
            // AUFS's own marks say nothing.
            .file(".wh..wh.aufs", b"")
            .directory(".wh..wh.plnk", 0o700)
            .file(".wh..wh.plnk/12.34", b""),
    )
    .unwrap();
    assert!(is_whiteout(&jail.path("a/gone")));
    assert_eq!(names(&jail.path("a")), ["gone"]);
    assert_eq!(xattr(&jail.path("b"), OPAQUE).as_deref(), Some(&b"y"[..]));
    assert_eq!(names(&jail.path("b")), ["kept"]);
    assert_eq!(fs::read(jail.path("c/file")).unwrap(), b"1");
    assert_eq!(fs::read(jail.path("c/dir/x")).unwrap(), b"1");
    for name in ["c/dir", "c/late"] {
        assert_eq!(xattr(&jail.path(name), OPAQUE).as_deref(), Some(&b"y"[..]), "{name}");
    }
    assert_eq!(names(&jail.path("")), ["a", "b", "c"]);
}

/// Overlayfs would list them as names that cannot be looked up.
#[test]
fn in_opaque_directories_there_are_no_whiteouts() {
    let jail = Jail::new();
    jail.apply(
        Tar::new()
            .file("before/.wh.gone", b"")
            .file("before/.wh..wh..opq", b"")
            .file("after/.wh..wh..opq", b"")
            .file("after/deep/er/.wh.gone", b"")
            .file("after/deep/er/kept", b"1")
            .file(".wh.anew", b"")
            .directory("anew", 0o755)
            .file("anew/.wh.gone", b"")
            .file("beside/.wh.gone", b"")
            // One in the other, again and by a link as well.
            .file("outer/.wh.gone", b"")
            .file("outer/in/ner/.wh.gone", b"")
            .file("outer/in/ner/deep/.wh.gone", b"")
            .symlink("link", "outer/in")
            .file("link/ner/.wh..wh..opq", b"")
            .file("outer/.wh..wh..opq", b"")
            .file("outer/.wh..wh..opq", b"")
            // What is no directory any more, or another one, is left alone.
            .file("moved/.wh..wh..opq", b"")
            .symlink("moved", "beside"),
    )
    .unwrap();
    for name in ["before", "after", "anew"] {
        assert_eq!(xattr(&jail.path(name), OPAQUE).as_deref(), Some(&b"y"[..]), "{name}");
    }
    assert_eq!(names(&jail.path("before")), [""; 0]);
    assert_eq!(names(&jail.path("anew")), [""; 0]);
    assert_eq!(names(&jail.path("outer")), ["in"]);
    assert_eq!(names(&jail.path("outer/in/ner")), ["deep"]);
    assert_eq!(names(&jail.path("outer/in/ner/deep")), [""; 0]);
    assert_eq!(names(&jail.path("after/deep/er")), ["kept"]);
    assert!(is_whiteout(&jail.path("beside/gone")));
    // The root's mark means nothing to overlayfs.
    let jail = Jail::new();
    jail.apply(Tar::new().file(".wh..wh..opq", b"").file(".wh.gone", b"")).unwrap();
    assert!(is_whiteout(&jail.path("gone")));
}

#[test]
fn whiteouts_hide_only_names() {
    let jail = Jail::new();
    for name in [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh.."] {
        jail.refuses(Tar::new().file(name, b""), "a whiteout must hide a name");
    }
    for name in [".wh.../x", "a/.wh.b/c", ".wh.../.wh.x"] {
        jail.refuses(Tar::new().file(name, b""), "members below it");
    }
    jail.refuses(Tar::new().file("a/../../.wh.x", b""), "leads upwards");
    // Through a link, opaque marks and whiteouts stay inside as anything else.
    let outside = jail.outside("");
    jail.refuses(Tar::new().symlink("l", &outside).file("l/.wh.secret", b""), "directory");
    jail.refuses(Tar::new().symlink("m", &outside).file("m/.wh..wh..opq", b""), "directory");
}

#[test]
fn names_do_not_lead_outside() {
    let jail = Jail::new();
    for name in ["../evil", "a/../../evil", "..", "/../evil", "./../evil", "a/.."] {
        jail.refuses(Tar::new().file(name, b"evil"), "leads upwards");
        jail.refuses(Tar::new().directory(name, 0o777), "leads upwards");
        jail.refuses(Tar::new().symlink(name, "x"), "leads upwards");
    }
    jail.refuses(Tar::new().pax(&[("path", b"../evil")]).file("x", b""), "leads upwards");
    jail.refuses(Tar::new().pax(&[("path", b"a\0b")]).file("x", b""), "NUL");
    jail.refuses(Tar::new().file("", b""), "no name");
    // An absolute name counts from the layer's root.
    let absolute = jail.outside("evil");
    jail.apply(Tar::new().pax(&[("path", absolute.as_bytes())]).file("x", b"1")).unwrap();
    assert_eq!(fs::read(jail.path(absolute.trim_start_matches('/'))).unwrap(), b"1");
    jail.assert_nothing_outside();
}

#[test]
fn links_do_not_lead_outside() {
    for target in ["../outside", "../../../../../../outside", "/proc/self/root", "/proc/self/cwd", "/proc/self/fd/0"] {
        let jail = Jail::new();
        jail.apply(Tar::new().symlink("l", target).file("l/secret", b"evil")).unwrap_err();
        jail.assert_nothing_outside();
    }
    let jail = Jail::new();
    let outside = jail.outside("");
    jail.apply(Tar::new().symlink("l", &outside).file("l/secret", b"evil")).unwrap_err();
    // The target exists below the root: there the file goes.
    let inside = outside.trim_start_matches('/').trim_end_matches('/').to_owned();
    let tar = Tar::new().pax(&[("path", inside.as_bytes())]).directory("x", 0o755);
    jail.apply(tar.symlink("l", &outside).file("l/secret", b"inside")).unwrap();
    assert_eq!(fs::read(jail.path(&inside).join("secret")).unwrap(), b"inside");
    jail.assert_nothing_outside();
    // Links in a circle end.
    jail.refuses(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b""), "symbolic links");
}

#[test]
fn the_last_component_is_never_followed() {
    let jail = Jail::new();
    let secret = jail.outside("secret");
    let outside = jail.outside("");
    jail.apply(
        Tar::new()
            .symlink("f", &secret)
            .file("f", b"evil")
            .symlink("d", &outside)
            .directory("d", 0o777)
            .file("d/secret", b"evil")
            .symlink("n", &secret)
            .add(Member { name: b"n", kind: EntryType::Fifo, mode: 0o777, ..Member::default() })
            .symlink("w", &secret)
            .file(".wh.w", b""),
    )
    .unwrap();
    assert_eq!(fs::read(jail.path("f")).unwrap(), b"evil");
    assert_eq!(fs::read(jail.path("d/secret")).unwrap(), b"evil");
    jail.assert_nothing_outside();
}

#[test]
fn hard_links_do_not_lead_outside() {
    let jail = Jail::new();
    let secret = jail.outside("secret");
    jail.refuses(Tar::new().hard_link("h", "../outside/secret"), "leads upwards");
    jail.refuses(Tar::new().hard_link("h", &secret), "link to");
    jail.refuses(Tar::new().symlink("l", &jail.outside("")).hard_link("h", "l/secret"), "link to");
    jail.refuses(Tar::new().hard_link("h", "/"), "root");
    jail.refuses(Tar::new().hard_link("h", ""), "target");
    jail.refuses(Tar::new().directory("dd", 0o755).hard_link("h", "dd"), "link to");
    // A link to a symbolic link is one to the link, and writing there replaces the name only.
    jail.apply(Tar::new().symlink("s", &secret).hard_link("h", "s").file("h", b"evil")).unwrap();
    assert_eq!(fs::read(jail.path("h")).unwrap(), b"evil");
    // To itself: stays.
    jail.apply(Tar::new().file("self", b"1").hard_link("self", "self")).unwrap();
    assert_eq!(fs::read(jail.path("self")).unwrap(), b"1");
    jail.assert_nothing_outside();
}

#[test]
fn later_members_replace_earlier_ones_of_other_types() {
    let jail = Jail::new();
    jail.apply(
        Tar::new()
            .directory("x", 0o700)
            .file("x/a/b/c", b"1")
            .file("x", b"file")
            .file("y", b"1")
            .directory("y", 0o711)
            .file("y/z", b"2")
            .file("f", b"long content")
            .hard_link("g", "f")
            .file("f", b"new")
            .directory("keep", 0o700)
            .file("keep/a", b"1")
            .directory("keep", 0o755),
    )
    .unwrap();
    assert_eq!(fs::read(jail.path("x")).unwrap(), b"file");
    assert_eq!(fs::read(jail.path("y/z")).unwrap(), b"2");
    assert_eq!(fs::read(jail.path("f")).unwrap(), b"new");
    assert_eq!(fs::read(jail.path("g")).unwrap(), b"long content", "replaced, not overwritten");
    assert_eq!(fs::read(jail.path("keep/a")).unwrap(), b"1");
    assert_eq!(fs::metadata(jail.path("keep")).unwrap().mode() & 0o777, 0o755);
    // The directory looked up last may be the one that is replaced.
    jail.apply(Tar::new().file("p/q", b"1").symlink("p", "y").file("p/r", b"2")).unwrap();
    assert_eq!(fs::read(jail.path("y/r")).unwrap(), b"2");
}

#[test]
fn deep_nesting_works_up_to_the_longest_name() {
    let jail = Jail::new();
    let deep = "d/".repeat(2000);
    jail.apply(Tar::new().pax(&[("path", format!("{deep}f").as_bytes())]).file("x", b"1")).unwrap();
    assert_eq!(fs::read(jail.path(&format!("{deep}f"))).unwrap(), b"1");
    // And is replaced without growing the stack.
    jail.apply(Tar::new().file("d", b"")).unwrap();
    assert!(jail.path("d").is_file());
}

#[test]
fn truncation_at_any_place_is_noticed() {
    let bytes = Tar::new().file("a", &[1; 700]).pax(&[("uid", b"7")]).file("b", &[2; 100]).bytes();
    let end = bytes.len() - 1024;
    for cut in (0..end).step_by(100).chain([512, 512 + 1024, 512 + 1024 + 1024, end]) {
        match Jail::new().apply_bytes(&bytes[..cut], &Limits::default()) {
            Ok(applied) => assert!(!applied.has_end, "cut at {cut}"),
            Err(error) => assert!(!format!("{error:#}").is_empty()),
        }
    }
    assert!(Jail::new().apply_bytes(&bytes, &Limits::default()).unwrap().has_end);
    let error = Jail::new().apply_bytes(&bytes[..600], &Limits::default()).unwrap_err();
    assert!(format!("{error:#}").contains("truncated"), "{error:#}");
}

#[test]
fn garbage_is_a_clean_error() {
    let mut random = 1_u32;
    for length in [1, 511, 512, 513, 5000] {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                random.to_le_bytes()[3]
            })
            .collect();
        assert!(Jail::new().apply_bytes(&bytes, &Limits::default()).is_err());
    }
    let kind = |byte| Member { name: b"x", kind: EntryType::new(byte), ..Member::default() };
    Jail::new().refuses(Tar::new().add(kind(b'V')), "not supported");
    Jail::new().refuses(Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("x", b""), "sparse");
    Jail::new().refuses(Tar::new().pax(&[("uid", b"4294967295")]).file("x", b""), "owner");
    Jail::new().refuses(Tar::new().pax(&[("uid", b"-1")]).file("x", b""), "malformed number");
}

#[test]
fn bombs_meet_limits() {
    let limits = Limits { entries: 10, bytes: 100_000 };
    let refused = |bytes: &[u8], reason: &str| {
        let text = format!("{:#}", Jail::new().apply_bytes(bytes, &limits).expect_err(reason));
        assert!(text.contains(reason), "{text}");
    };
    let many = (0..11).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), b""));
    refused(&many.bytes(), "more than 10 members");
    refused(&Tar::new().file("a", &[0; 60_000]).file("b", &[0; 60_000]).bytes(), "more than 100000 bytes");
    // Behind members that have no place.
    for (name, kind) in [(&b".wh.d"[..], EntryType::Regular), (b"g", EntryType::XGlobalHeader)] {
        let padded = Member { name, kind, content: &[0; 200_000], ..Member::default() };
        refused(&Tar::new().add(padded).bytes(), "more than 100000 bytes");
    }
    // Behind the end.
    let mut after = Tar::new().bytes();
    after.resize(200_000, 0);
    refused(&after, "contents exceed the limit");
    // A name, or attributes, that would have to be kept in memory.
    let name = Member { name: b"x", kind: EntryType::GNULongName, content: &vec![b'a'; 2 << 20], ..Member::default() };
    refused(&Tar::new().add(name).file("x", b"").bytes(), "headers of one member exceed the limit");
    let value = vec![b'a'; 2 << 20];
    refused(&Tar::new().pax(&[("SCHILY.xattr.user.x", &value)]).file("x", b"").bytes(), "headers of one member");
}

#[test]
fn sparse_files_keep_their_holes() {
    let dir = tempfile::tempdir().unwrap();
    let source = File::create(dir.path().join("holes")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, b"end", 8 << 20).unwrap();
    let output = std::process::Command::new("tar")
        .args(["--create", "--sparse", "--format=gnu", "--directory"])
        .arg(dir.path())
        .arg("holes")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let jail = Jail::new();
    jail.apply_bytes(&output.stdout, &Limits::default()).unwrap();
    let metadata = fs::metadata(jail.path("holes")).unwrap();
    assert_eq!(metadata.len(), (8 << 20) + 3);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    assert!(fs::read(jail.path("holes")).unwrap().ends_with(b"\0end"));
    let error = jail.apply_bytes(&output.stdout, &Limits { entries: 10, bytes: 1 << 20 }).unwrap_err();
    assert!(format!("{error:#}").contains("unpacks to more than"), "{error:#}");
}

#[test]
fn names_need_not_be_text() {
    let jail = Jail::new();
    jail.apply(Tar::new().add(Member { name: b"\xff\x1b[31m", content: b"1", ..Member::default() })).unwrap();
    assert_eq!(fs::read(jail.path("").join(std::ffi::OsStr::from_bytes(b"\xff\x1b[31m"))).unwrap(), b"1");
    // In messages they cannot write to the terminal.
    let error = jail.apply(Tar::new().add(Member { name: b"\x1b[31m/..", ..Member::default() })).unwrap_err();
    assert!(!format!("{error:#}").contains('\x1b'));
}
