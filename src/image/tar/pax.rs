//! PAX records (pax(1), extended header): what a member says of itself beyond its header block.
//!
//! Read here and not by a library because values may contain anything: `security.capability` is binary.
//! Everything in here is what a stranger wrote; nothing is trusted beyond its form.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use base64::Engine as _;
use rustix::fs::Timespec;

use super::header::number;
use super::sparse::Sparse;

/// The records of one member that matter to us.
#[derive(Debug, Default)]
pub(in crate::image) struct Pax {
    pub(in crate::image) path: Option<Vec<u8>>,
    pub(in crate::image) link: Option<Vec<u8>>,
    pub(in crate::image) size: Option<u64>,
    pub(in crate::image) uid: Option<u64>,
    pub(in crate::image) gid: Option<u64>,
    pub(in crate::image) mtime: Option<Timespec>,
    /// Extended attributes by their full name, `user.x`.
    pub(in crate::image) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What GNU's sparse formats say.
    pub(in crate::image) sparse: Sparse,
}

impl Pax {
    /// Reads records of the form `LENGTH KEY=VALUE\n`, the length counting all of that.
    ///
    /// # Errors
    /// Malformed records, and values that are not of the form their key wants.
    pub(in crate::image) fn read(&mut self, mut data: &[u8]) -> Result<()> {
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
            self.record(&record[..equals], &record[equals + 1..])?;
            // The record, its newline, and the length with its space: where the next one begins.
            let end = record.as_ptr() as usize - data.as_ptr() as usize + record.len() + 1;
            data = &data[end..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let text = || String::from_utf8_lossy(value).into_owned();
        let numeric = || number(value).ok_or_else(|| anyhow::anyhow!("malformed number {:?} in PAX record", text()));
        // An empty value takes the record back (pax(1)): what the header says holds again.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"size" => self.size = given.then(numeric).transpose()?,
            b"uid" => self.uid = given.then(numeric).transpose()?,
            b"gid" => self.gid = given.then(numeric).transpose()?,
            b"mtime" => {
                self.mtime = match decimal(value) {
                    None if given => bail!("malformed time {:?} in PAX record", text()),
                    time => time,
                }
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // libarchive writes both forms where it can; they say the same.
                    let form = base64::engine::GeneralPurpose::new(
                        &base64::alphabet::STANDARD,
                        base64::engine::GeneralPurposeConfig::new()
                            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
                            .with_decode_allow_trailing_bits(true),
                    );
                    match form.decode(value) {
                        Ok(value) => self.xattr(unescape(name), value),
                        Err(_) => bail!("malformed base64 in PAX record"),
                    }
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        match self.xattrs.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => self.xattrs.push((name, value)),
        }
    }
}

/// `%XX` as libarchive writes names of attributes.
fn unescape(name: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let mut plain = Vec::with_capacity(name.len());
    let mut at = 0;
    while let Some(byte) = name.get(at) {
        match (byte, digit(name.get(at + 1)), digit(name.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                plain.push(high << 4 | low);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    plain
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

/// One record, its own length counted in (pax(1)).
pub(in crate::image) fn append(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The space, the equals sign and the line feed.
    let bare = key.len() + value.len() + 3;
    let digits = |number: usize| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut length = bare + digits(bare);
    length = bare + digits(length);
    let mut start = String::new();
    // Writing to a String cannot fail.
    let _ = write!(start, "{length} ");
    records.extend_from_slice(start.as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_contain_anything() {
        let mut pax = Pax::default();
        pax.read(b"32 SCHILY.xattr.user.a=x\n9 a=b\n\n11 mtime=2\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"x\n9 a=b\n".to_vec())]);
        assert_eq!(pax.mtime.map(|time| time.tv_sec), Some(2));
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut pax = Pax::default();
        pax.read(b"9 path=a\n8 path=\n9 uid=10\n7 uid=\n").unwrap();
        assert_eq!((pax.path, pax.uid), (None, None));
    }

    #[test]
    fn libarchive_writes_attributes_in_base64() {
        let mut records = Vec::new();
        append(&mut records, b"LIBARCHIVE.xattr.user.a%3Db", b"AAoB");
        append(&mut records, b"LIBARCHIVE.xattr.user.pad", b"/w==");
        let mut pax = Pax::default();
        pax.read(&records).unwrap();
        assert_eq!(pax.xattrs, [(b"user.a=b".to_vec(), vec![0, 10, 1]), (b"user.pad".to_vec(), vec![255])]);
    }

    #[test]
    fn records_count_their_own_length() {
        for size in [0, 1, 90, 91, 92, 93, 94, 95, 985, 986, 987, 988, 989, 990, 5000] {
            let value = vec![b'v'; size];
            let mut records = Vec::new();
            append(&mut records, b"path", &value);
            append(&mut records, b"linkpath", b"x");
            let mut pax = Pax::default();
            pax.read(&records).unwrap();
            assert_eq!((pax.path.unwrap_or_default(), pax.link.unwrap()), (value, b"x".to_vec()), "{size}");
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        for data in [
            &b"x"[..],
            b"5 a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"6 a=bc",
            b"6 abc\n",
            b"-6 a=b\n",
            b"8 uid=x\n",
            b"\xff",
            b"99999999999999999999 a=b\n",
            b"27 LIBARCHIVE.xattr.a=AA!\n",
        ] {
            assert!(Pax::default().read(data).is_err(), "{:?}", String::from_utf8_lossy(data));
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
}
