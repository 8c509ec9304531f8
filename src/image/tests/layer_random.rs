//! Archives that nobody would write: members in any order, undoing each other, and damaged bytes. Whatever comes,
//! nothing outside is touched, and what was unpacked can be told again (the jail checks both).

use proptest::prelude::*;
use tar::EntryType;

use super::jail::Jail;
use super::{Member, Tar};
use crate::image::layer::apply::Limits;

#[derive(Debug, Clone)]
enum Step {
    Member { name: String, kind: u8, link: String, size: usize, owner: u64, mode: u32 },
    Pax { key: &'static str, value: Vec<u8> },
}

/// Few names, so that members meet.
fn name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "l", ".wh.a", ".wh.l", ".wh..wh..opq", ".wh..wh.x", ".", "..", "", "c"]);
    // Mostly plain ones: a name with `..` ends the archive.
    prop_oneof![
        8 => prop::collection::vec(prop::sample::select(vec!["a", "b", "l"]), 1..4).prop_map(|parts| parts.join("/")),
        2 => prop::sample::select(vec!["a/", "./a", "/b//l", "a/.wh.b", ".wh.l", "b/.wh..wh..opq", "./"]).prop_map(String::from),
        1 => prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/")),
    ]
}

fn link() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "l", "a/b", "/b", "../..", "../outside", "/", ".", "l/l", "a/l"])
        .prop_map(String::from)
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(0_usize), Just(1), Just(511), Just(512), Just(513), 0..3000_usize];
    let member =
        (name(), prop::sample::select(b"000000111222255555346g7".to_vec()), link(), size, 0..3_u64, 0..0o10000_u32)
            .prop_map(|(name, kind, link, size, owner, mode)| Step::Member { name, kind, link, size, owner, mode });
    let pax = prop_oneof![
        name().prop_map(|name| Step::Pax { key: "path", value: name.into_bytes() }),
        link().prop_map(|link| Step::Pax { key: "linkpath", value: link.into_bytes() }),
        Just(Step::Pax { key: "mtime", value: b"-5.25".to_vec() }),
        prop::collection::vec(any::<u8>(), 0..600).prop_map(|value| Step::Pax { key: "SCHILY.xattr.user.x", value }),
        prop::sample::select(vec!["0", "7", "600"])
            .prop_map(|size| Step::Pax { key: "size", value: size.as_bytes().to_vec() }),
    ];
    prop_oneof![12 => member, 1 => pax]
}

fn archive(steps: &[Step]) -> Vec<u8> {
    let mut tar = Tar::new();
    for (number, step) in steps.iter().enumerate() {
        tar = match step {
            Step::Pax { key, value } => tar.pax(&[(key, value)]),
            Step::Member { name, kind, link, size, owner, mode } => {
                let kind = EntryType::new(*kind);
                let carries = matches!(kind.as_byte(), b'0' | b'7' | b'g');
                let content = if carries { vec![number as u8; *size] } else { Vec::new() };
                let link = if matches!(kind.as_byte(), b'1' | b'2') { link.as_bytes() } else { b"" };
                let name = name.as_bytes();
                tar.add(Member {
                    name,
                    kind,
                    mode: *mode,
                    link,
                    content: &content,
                    owner: (*owner, 0),
                    ..Member::default()
                })
            }
        };
    }
    tar.bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_archive_is_refused_or_told_again(steps in prop::collection::vec(step(), 1..24)) {
        let jail = Jail::new();
        // An error is as good: what matters is checked where there is none.
        let _ = jail.apply_bytes(&archive(&steps), &Limits::default());
        jail.assert_nothing_outside();
    }

    #[test]
    fn damage_is_refused_or_told_again(
        steps in prop::collection::vec(step(), 1..8),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = archive(&steps);
        for (at, byte, mend) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if mend {
                // A header whose checksum is right gets further.
                let start = at / 512 * 512;
                if let Some(block) = bytes.get_mut(start..start + 512) {
                    let mut header = tar::Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let jail = Jail::new();
        let _ = jail.apply_bytes(&bytes, &Limits { entries: 100, bytes: 1 << 20 });
        jail.assert_nothing_outside();
    }
}
