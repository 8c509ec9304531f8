//! What a tar member says about itself: name, link target, owner, times, extended attributes.
//!
//! The `tar` crate finds members and their contents. PAX records are read here, from the header blocks
//! the meter kept: the crate splits them at line feeds, which values (`security.capability` is binary)
//! may contain. Everything in here is what a stranger wrote; nothing is trusted beyond its form.

use anyhow::{Result, bail};
use rustix::fs::Timespec;

/// Size of a tar block in bytes (pax(1), ustar interchange format).
const BLOCK: usize = 512;
/// The longest name, in bytes: PATH_MAX.
const MAX_NAME: usize = 4096;

/// The PAX records of one member that matter to us.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The member is one of GNU's PAX sparse formats, whose contents begin with a map.
    pub(super) sparse: bool,
}

impl Pax {
    /// Reads the extension headers at the start of `blocks`, which end with the member's own header.
    pub(super) fn read(blocks: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        let mut rest = blocks;
        while let Some((header, after)) = rest.split_at_checked(BLOCK) {
            let kind = header[156];
            if !matches!(kind, b'x' | b'L' | b'K') {
                break;
            }
            let mut raw = tar::Header::new_old();
            raw.as_mut_bytes().copy_from_slice(header);
            let size = usize::try_from(raw.entry_size()?)?;
            let Some(padded) = size.checked_next_multiple_of(BLOCK).filter(|padded| *padded <= after.len()) else {
                bail!("an extension header is cut short");
            };
            if kind == b'x' {
                pax.records(&after[..size])?;
            }
            rest = &after[padded..];
        }
        Ok(pax)
    }

    /// Records are `LENGTH KEY=VALUE\n`, the length counting all of that.
    fn records(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let record = data
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .and_then(|space| Some((space, number(&data[..space])?)))
                .and_then(|(space, length)| data.get(space + 1..usize::try_from(length).ok()?)?.strip_suffix(b"\n"));
            let Some((record, equals)) = record.and_then(|r| Some((r, r.iter().position(|byte| *byte == b'=')?)))
            else {
                bail!("malformed PAX record");
            };
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.record(key, value)?;
            // The record, its newline, and the length with its space: where the next one begins.
            let end = record.as_ptr() as usize - data.as_ptr() as usize + record.len() + 1;
            data = &data[end..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let text = || String::from_utf8_lossy(value).into_owned();
        let numeric = || number(value).ok_or_else(|| anyhow::anyhow!("malformed number {:?} in PAX record", text()));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(numeric()?),
            b"uid" => self.uid = Some(numeric()?),
            b"gid" => self.gid = Some(numeric()?),
            b"mtime" => match decimal(value) {
                Some(time) => self.mtime = Some(time),
                None => bail!("malformed time {:?} in PAX record", text()),
            },
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if key.starts_with(b"GNU.sparse.") {
                    self.sparse = true;
                }
            }
        }
        Ok(())
    }
}

/// A numeric field of a header; some writers leave it blank for zero.
pub(super) fn field<T: Default>(raw: &[u8], value: std::io::Result<T>) -> std::io::Result<T> {
    match value {
        Err(_) if raw.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(T::default()),
        other => other,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Seconds since 1970 with a fraction: `1700000000.25`, `-1.5`.
fn decimal(text: &[u8]) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(number(whole)?).ok()?;
    let nanoseconds = (0..9).fold(0, |sum, i| sum * 10 + fraction.get(i).map_or(0, |digit| i64::from(digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanoseconds },
    })
}

/// The components of a member's name, without empty ones and `.`; none at all is the root itself. An
/// absolute name is taken from the root, as tar(1) and Docker do.
///
/// # Errors
/// A name that is empty, too long, or has `..` or a NUL in it.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    if name.is_empty() {
        bail!("a member has no name");
    }
    if name.len() > MAX_NAME {
        bail!("a member's name is longer than {MAX_NAME} bytes");
    }
    if name.contains(&0) {
        bail!("a name contains a NUL byte");
    }
    let components: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|c| !matches!(*c, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        bail!("a name that leads upwards (..) is refused");
    }
    Ok(components)
}

/// A name for messages: quoted, control characters escaped, shortened.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
    if name.len() > 256 {
        text.push('…');
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_contain_anything() {
        let mut pax = Pax::default();
        pax.records(b"32 SCHILY.xattr.user.a=x\n9 a=b\n\n11 mtime=2\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"x\n9 a=b\n".to_vec())]);
        assert_eq!(pax.mtime.map(|time| time.tv_sec), Some(2));
    }

    #[test]
    fn malformed_records_are_errors() {
        for data in
            [&b"x"[..], b"5 a=b\n", b"99 a=b\n", b"0 a=b\n", b"6 a=bc", b"6 abc\n", b"-6 a=b\n", b"8 uid=x\n", b"\xff"]
        {
            assert!(Pax::default().records(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let time = |text: &str| decimal(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12.0000000019"), Some((12, 1)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        for text in ["", ".", "x", "1.x", "--1", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn names_stay_below_the_root() {
        let join = |name: &[u8]| components(name).map(|parts| parts.join(&b'/'));
        assert_eq!(join(b"/etc//./passwd").unwrap(), b"etc/passwd");
        assert_eq!(join(b"./").unwrap(), b"");
        assert_eq!(join(b"a/..b").unwrap(), b"a/..b");
        for name in [&b""[..], b"..", b"../x", b"a/../b", b"a/..", b"a\0b", &[b'a'; 4097]] {
            assert!(components(name).is_err());
        }
    }
}
