//! Forms that archives may have and tar(1) rarely writes; where readers differ, Go's decides.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use super::jail::Jail;
use super::tree::shell;
use super::{Member, Tar};
use crate::image::layer::apply::{Limits, Retold};
use crate::image::layer::unpack::{Keep, unpack};

#[test]
fn files_beyond_eight_gigabytes() {
    let dir = tempfile::tempdir().unwrap();
    shell(dir.path(), "truncate -s 9G huge; echo end >>huge");
    for format in ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"] {
        shell(dir.path(), &format!("tar --format={format} --sparse -cf huge.tar huge"));
        let bytes = fs::read(dir.path().join("huge.tar")).unwrap();
        let staging = tempfile::tempdir().unwrap();
        let result = unpack(&bytes[..], staging.path(), Keep::Nothing, &Limits::default()).unwrap();
        assert_eq!((result.size, result.retold), ((9 << 30) + 4, Retold::Exact), "{format}");
        let metadata = fs::metadata(staging.path().join("diff/huge")).unwrap();
        assert_eq!(metadata.len(), (9 << 30) + 4);
        assert!(metadata.blocks() * 512 < 1 << 20);
        // Holes count: they are read in full by whoever reads the file.
        let staging = tempfile::tempdir().unwrap();
        let error =
            unpack(&bytes[..], staging.path(), Keep::Nothing, &Limits { entries: 9, bytes: 9 << 30 }).unwrap_err();
        assert!(format!("{error:#}").contains("unpacks to more than"), "{error:#}");
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |records: &[(&str, &[u8])], content: &[u8]| {
        format!("{:#}", Jail::new().apply(Tar::new().pax(records).file("x", content)).expect_err("a lie"))
    };
    let old = |map: &[u8], size: &[u8]| sparse(&[("GNU.sparse.map", map), ("GNU.sparse.size", size)], b"abc");
    assert!(old(b"0,4", b"100").contains("about the size"));
    assert!(old(b"98,3", b"100").contains("outside the file"));
    assert!(old(b"10,2,5,1", b"100").contains("outside the file"));
    assert!(old(b"18446744073709551615,3", b"100").contains("outside the file"));
    assert!(old(b"1,2,3", b"100").contains("malformed map"));
    assert!(old(b"1,x", b"100").contains("malformed map"));
    assert!(old(b"0,3", b"99999999999999999999").contains("malformed number"));
    let one: &[(&str, &[u8])] =
        &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
    assert!(sparse(one, b"1\n0\n3\nabc").contains("cut short"));
    assert!(sparse(one, &[b'1'; 512]).contains("malformed map"));
    let mut many = b"99999999999\n".to_vec();
    many.resize(512, b'\n');
    assert!(sparse(one, &many).contains("parts"));
    let other: &[(&str, &[u8])] = &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")];
    assert!(sparse(other, b"").contains("format 2.0"));
}

#[test]
fn directories_hand_nothing_down_while_they_are_filled() {
    let jail = Jail::new();
    let acl =
        [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0, 255, 255, 255, 255];
    let directory =
        Member { name: b"d", kind: EntryType::Directory, mode: 0o2750, owner: (0, 50), ..Member::default() };
    jail.apply(
        Tar::new()
            .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)])
            .add(directory)
            .add(Member { name: b"d/f", mode: 0o600, content: b"1", ..Member::default() })
            .directory("d/e", 0o700)
            .add(Member { name: b"d/p", kind: EntryType::Fifo, mode: 0o620, ..Member::default() }),
    )
    .unwrap();
    for (name, mode, gid) in [("d", 0o2750, 50), ("d/f", 0o600, 0), ("d/e", 0o700, 0), ("d/p", 0o620, 0)] {
        let metadata = fs::symlink_metadata(jail.path(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (mode, gid), "{name}");
    }
    let value = |name: &str| {
        let mut value = [0; 64];
        let length = rustix::fs::lgetxattr(jail.path(name), "system.posix_acl_default", &mut value[..]);
        length.map(|length| value[..length].to_vec())
    };
    assert_eq!(value("d").unwrap(), acl);
    assert!(value("d/e").is_err());
    // What a directory was to get and a later member takes back.
    jail.apply(Tar::new().directory("s", 0o2755).directory("s", 0o711)).unwrap();
    assert_eq!(fs::metadata(jail.path("s")).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn where_readers_differ_go_decides() {
    // Links and directories have no contents, whatever they say of their size.
    let jail = Jail::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Link);
    header.set_path("hard").unwrap();
    header.set_link_name("f").unwrap();
    header.set_size(700);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = Tar::new().file("f", &[1; 700]).bytes();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(Tar::new().file("g", b"2").bytes());
    jail.apply_bytes(&bytes, &Limits::default()).unwrap();
    assert_eq!(fs::read(jail.path("g")).unwrap(), b"2");
    assert_eq!(fs::metadata(jail.path("hard")).unwrap().nlink(), 2);
    // A lone block of zeros ends an archive only where nothing follows: another reader would go on.
    let member = &Tar::new().file("hidden", b"1").bytes();
    let start = &Tar::new().file("f", b"1").bytes()[..1024];
    let error = Jail::new().apply_bytes(&[start, &[0; 512], member].concat(), &Limits::default()).unwrap_err();
    assert!(format!("{error:#}").contains("goes on after its end"), "{error:#}");
    assert!(Jail::new().apply_bytes(&[start, &[0; 512]].concat(), &Limits::default()).unwrap().has_end);
    assert!(Jail::new().apply_bytes(&[start, &[0; 1024], &member[..]].concat(), &Limits::default()).unwrap().has_end);
    // A record without value is none; GNU's long name is the last word.
    let jail = Jail::new();
    jail.apply(Tar::new().pax(&[("path", b"")]).file("header", b"1")).unwrap();
    assert!(jail.path("header").exists());
    let name = Member { name: b"././@LongLink", kind: EntryType::GNULongName, content: b"gnu\0", ..Member::default() };
    jail.apply(Tar::new().pax(&[("path", b"pax")]).add(name).file("header", b"1")).unwrap();
    assert!(jail.path("gnu").exists() && !jail.path("pax").exists());
}

#[test]
fn checksums_are_checked() {
    let good = Tar::new().file("f", b"1").bytes();
    for at in [0, 100, 124, 155, 156, 500] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let error = Jail::new().apply_bytes(&bytes, &Limits::default()).unwrap_err();
        assert!(format!("{error:#}").contains("checksum"), "{at}: {error:#}");
    }
    // Summed as signed bytes, as some old writers did.
    let mut bytes = good;
    bytes[0] = 0xe4;
    let mut sum = 8 * 32;
    for (at, byte) in bytes[..512].iter().enumerate() {
        sum += if (148..156).contains(&at) { 0 } else { i32::from(byte.cast_signed()) };
    }
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Jail::new().apply_bytes(&bytes, &Limits::default()).unwrap();
}

#[test]
fn a_directory_that_nobody_packed_may_follow_its_whiteout() {
    let jail = Jail::new();
    jail.apply(Tar::new().file(".wh.d", b"").file("d/e/f", b"1")).unwrap();
    assert_eq!(fs::read(jail.path("d/e/f")).unwrap(), b"1");
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(jail.path("d"), "trusted.overlay.opaque", &mut value[..]), Ok(1));
}

#[test]
fn contents_may_not_claim_more_than_there_is() {
    for size in [1_u64 << 20, 1 << 40, 1 << 62, u64::MAX] {
        let text = size.to_string();
        let error = Jail::new().apply(Tar::new().pax(&[("size", text.as_bytes())]).file("f", b"1")).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            ["truncated", "unpacks to more than", "out of range"].iter().any(|reason| text.contains(reason)),
            "{text}"
        );
    }
}

/// As in Docker; GNU tar would let the first hold, and pax(1) leaves it open.
#[test]
fn where_headers_of_one_file_disagree_the_last_holds() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let jail = Jail::new();
    let file = |name, mode, owner| Member { name, mode, owner, content: b"x", ..Member::default() };
    let link = |name, target, mode, owner| Member {
        name,
        link: target,
        kind: EntryType::Link,
        mode,
        owner,
        ..Member::default()
    };
    let applied = jail
        .apply(
            Tar::new()
                .add(file(b"narrowed", 0o4755, (5, 6)))
                .pax(&[("mtime", b"7.5"), ("SCHILY.xattr.user.later", b"1")])
                .add(link(b"n", b"narrowed", 0o600, (7, 8)))
                .add(file(b"widened", 0o600, (0, 0)))
                .add(link(b"w", b"widened", 0o6755, (1, 1)))
                .pax(&[("SCHILY.xattr.security.capability", capability)])
                .add(file(b"ping", 0o755, (0, 0)))
                .add(link(b"p", b"ping", 0o755, (0, 0)))
                .symlink("symbolic", "/nowhere")
                .add(link(b"s", b"symbolic", 0o777, (3, 4))),
        )
        .unwrap();
    assert_eq!(applied.retold, Retold::Exact);
    let worn = |name: &str| {
        let metadata = fs::symlink_metadata(jail.path(name)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!(worn("narrowed"), (0o600, 7, 8, 7, 500_000_000));
    let mut value = [0; 32];
    assert_eq!(rustix::fs::getxattr(jail.path("narrowed"), "user.later", &mut value[..]), Ok(1));
    assert_eq!(worn("widened"), (0o6755, 1, 1, 1_000_000_000, 0));
    assert_eq!(worn("symbolic"), (0o777, 3, 4, 1_000_000_000, 0));
    // GNU tar does not say attributes again of a link: they stay as long as the owner does.
    assert_eq!(rustix::fs::getxattr(jail.path("ping"), "security.capability", &mut value[..]), Ok(20));
}

#[test]
fn a_slash_behind_a_name_makes_a_directory_in_old_archives_alone() {
    for (kind, is_directory) in [(0, true), (b'0', false)] {
        let mut bytes = Tar::new().file("name/", b"").bytes();
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        header.as_mut_bytes()[156] = kind;
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        let jail = Jail::new();
        jail.apply_bytes(&bytes, &Limits::default()).unwrap();
        assert_eq!(jail.path("name").is_dir(), is_directory);
    }
}
