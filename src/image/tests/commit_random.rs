//! Commits of whatever a container may do: a real overlay is changed at random, generation upon generation. What its
//! upper directory becomes as a layer must show the same tree, and `diff` must tell what a plain comparison tells.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::tree::{Overlay, tree};
use crate::image::layer::apply::Limits;
use crate::image::layer::changes::{Change, changes};
use crate::image::layer::mount_points::MountPoints;
use crate::image::layer::pack::pack_upper;
use crate::image::layer::unpack::{Keep, Retold, unpack};

#[derive(Debug, Clone)]
enum Step {
    Write { path: String, size: usize },
    Append { path: String },
    Truncate { path: String, size: u64 },
    Remove { path: String },
    MakeDirectory { path: String },
    Rename { from: String, to: String },
    Symlink { path: String, target: &'static str },
    HardLink { path: String, target: String },
    Mode { path: String, mode: u32 },
    Owner { path: String, owner: u32, follow: bool },
    Attribute { path: String, name: &'static str, value: Vec<u8> },
    NoAttribute { path: String, name: &'static str },
    Node { path: String, kind: FileType },
    Time { path: String, seconds: i64, nanoseconds: i64 },
}

impl Step {
    /// Does it below `root`; much of it is impossible, as it would be in a container.
    fn run(&self, root: &Path) -> io::Result<()> {
        let at = |path: &str| root.join(path);
        let user_read = Mode::from_raw_mode(0o640);
        match self {
            Step::Write { path, size } => {
                options().write(true).create(true).truncate(true).open(at(path))?.write_all(&vec![*size as u8; *size])
            }
            Step::Append { path } => options().append(true).open(at(path))?.write_all(b"more"),
            Step::Truncate { path, size } => options().write(true).open(at(path))?.set_len(*size),
            Step::Remove { path } => match fs::symlink_metadata(at(path))?.is_dir() {
                true => fs::remove_dir_all(at(path)),
                false => fs::remove_file(at(path)),
            },
            Step::MakeDirectory { path } => fs::create_dir_all(at(path)),
            Step::Rename { from, to } => fs::rename(at(from), at(to)),
            Step::Symlink { path, target } => symlink(target, at(path)),
            Step::HardLink { path, target } => fs::hard_link(at(target), at(path)),
            Step::Mode { path, mode } => fs::set_permissions(at(path), Permissions::from_mode(*mode)),
            Step::Owner { path, owner, follow: true } => chown(at(path), Some(*owner), None),
            Step::Owner { path, owner, follow: false } => lchown(at(path), None, Some(*owner)),
            Step::Attribute { path, name, value } => {
                Ok(rustix::fs::lsetxattr(at(path), *name, value, XattrFlags::empty())?)
            }
            Step::NoAttribute { path, name } => Ok(rustix::fs::lremovexattr(at(path), *name)?),
            Step::Node { path, kind } => {
                Ok(rustix::fs::mknodat(CWD, at(path), *kind, user_read, rustix::fs::makedev(1, 3))?)
            }
            Step::Time { path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
        }
    }
}

/// Not to wait for a reader where there is a fifo.
fn options() -> OpenOptions {
    let mut options = File::options();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

/// Few names, so that steps meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(vec!["user.one", "user.two", "security.capability"]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just([1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec()),
    ];
    let kind = prop::sample::select(vec![FileType::Fifo, FileType::CharacterDevice, FileType::Socket]);
    prop_oneof![
        6 => (path(), prop_oneof![Just(0_usize), 1..2000_usize]).prop_map(|(path, size)| Step::Write { path, size }),
        2 => path().prop_map(|path| Step::Append { path }),
        1 => (path(), 0..100_000_u64).prop_map(|(path, size)| Step::Truncate { path, size }),
        5 => path().prop_map(|path| Step::Remove { path }),
        5 => path().prop_map(|path| Step::MakeDirectory { path }),
        3 => (path(), path()).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => (path(), prop::sample::select(vec!["a", "b/c", "nowhere"]))
            .prop_map(|(path, target)| Step::Symlink { path, target }),
        3 => (path(), path()).prop_map(|(path, target)| Step::HardLink { path, target }),
        2 => (path(), 0..0o10000_u32).prop_map(|(path, mode)| Step::Mode { path, mode }),
        2 => (path(), 0..3_u32, any::<bool>()).prop_map(|(path, owner, follow)| Step::Owner { path, owner, follow }),
        2 => (path(), name(), value).prop_map(|(path, name, value)| Step::Attribute { path, name, value }),
        1 => (path(), name()).prop_map(|(path, name)| Step::NoAttribute { path, name }),
        1 => (path(), kind).prop_map(|(path, kind)| Step::Node { path, kind }),
        1 => (path(), -3..3_i64, prop::sample::select(vec![0, 1, 999_999_999]))
            .prop_map(|(path, seconds, nanoseconds)| Step::Time { path, seconds, nanoseconds }),
    ]
}

/// Everything below `root`.
fn walk(root: &Path) -> BTreeMap<Vec<u8>, Metadata> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            found.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), metadata.clone());
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

/// What `diff` should tell, from the tree before and the tree after alone.
fn compared(before: &BTreeMap<Vec<u8>, Metadata>, after: &BTreeMap<Vec<u8>, Metadata>) -> Vec<(Change, Vec<u8>)> {
    let worn = |file: &Metadata| (file.mode(), file.uid(), file.gid(), file.rdev());
    let content = |file: &Metadata| (file.len(), file.mtime(), file.mtime_nsec());
    let same =
        |old: &Metadata, new: &Metadata| worn(old) == worn(new) && (new.is_dir() || content(old) == content(new));
    let mut told = BTreeMap::new();
    for (path, new) in after {
        match before.get(path) {
            None => drop(told.insert(path.clone(), Change::Added)),
            Some(old) if same(old, new) => {}
            Some(_) => drop(told.insert(path.clone(), Change::Changed)),
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        // Nothing is told of what was below.
        if parents(path).all(|parent| after.get(parent).is_some_and(Metadata::is_dir)) {
            told.insert(path.clone(), Change::Deleted);
        }
    }
    for path in told.keys().cloned().collect::<Vec<_>>() {
        for parent in parents(&path) {
            told.entry(parent.to_vec()).or_insert(Change::Changed);
        }
    }
    told.into_iter().map(|(path, change)| (change, [b"/", &path[..]].concat())).collect()
}

fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_shows_what_the_container_showed(
        generations in prop::collection::vec(prop::collection::vec(step(), 1..30), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        // The topmost first.
        let mut layers: Vec<PathBuf> = vec![dir.path().join("empty")];
        fs::create_dir(&layers[0]).unwrap();
        for (number, steps) in generations.iter().enumerate() {
            let overlay = Overlay::over(&layers);
            let merged = overlay.path("merged");
            let before = walk(&merged);
            for step in steps {
                let _ = step.run(&merged);
            }
            let after = walk(&merged);
            let shown = tree(&merged);
            let upper = File::open(overlay.path("upper")).unwrap();
            let opened: Vec<File> = layers.iter().map(|layer| File::open(layer).unwrap()).collect();
            let lowers: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
            let told = changes(upper.as_fd(), &lowers, &MountPoints::default()).unwrap();
            prop_assert_eq!(told, compared(&before, &after));
            let mut bytes = Vec::new();
            pack_upper(upper.as_fd(), &lowers, &MountPoints::default(), &mut bytes).unwrap();
            let staging = dir.path().join(number.to_string());
            fs::create_dir(&staging).unwrap();
            let result = unpack(&bytes[..], &staging, Keep::Nothing, &Limits::default()).unwrap();
            prop_assert_eq!((result.retold, result.has_end), (Retold::Exact, true));
            layers.insert(0, staging.join("diff"));
            prop_assert_eq!(tree(&Overlay::over(&layers).path("merged")), shown);
        }
    }
}
