//! What a tar member's header block says (pax(1), ustar interchange format; GNU tar's and star's variants),
//! and what its name may be. Everything in here is what a stranger wrote.

use anyhow::{Context, Result, bail};

/// Size of a tar block in bytes.
pub(in crate::image) const BLOCK: usize = 512;
/// The longest name, in bytes: PATH_MAX counts a NUL in.
const MAX_NAME: usize = 4095;
/// Where a header's checksum stands.
pub(in crate::image) const CHECKSUM: std::ops::Range<usize> = 148..156;

/// One header block whose checksum is right.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// Takes a block for a header.
    ///
    /// # Errors
    /// A checksum that is wrong: what stands here is no header.
    pub(in crate::image) fn new(block: &'a [u8; BLOCK]) -> Result<Header<'a>> {
        let stored = numeric(&block[CHECKSUM]).context("this is no tar archive: a header has no checksum")?;
        // Some writers summed signed bytes.
        let signed = || {
            let all: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
            all - block[CHECKSUM].iter().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * i64::from(b' ')
        };
        if stored != i64::from(checksum(block)) && stored != signed() {
            bail!("this is no tar archive, or a damaged one: the checksum of a header is wrong");
        }
        Ok(Header(block))
    }

    /// The type flag.
    pub(in crate::image) fn kind(self) -> u8 {
        self.0[156]
    }

    /// Appends the name, of which ustar keeps the beginning in a field of its own.
    pub(in crate::image) fn name(self, into: &mut Vec<u8>) {
        let prefix = match &self.0[257..265] {
            // star keeps times where the prefix ends.
            b"ustar\x0000" if &self.0[508..] == b"tar\0" => text(&self.0[345..476]),
            b"ustar\x0000" => text(&self.0[345..500]),
            _ => b"",
        };
        if !prefix.is_empty() {
            into.extend_from_slice(prefix);
            into.push(b'/');
        }
        into.extend_from_slice(text(&self.0[..100]));
    }

    /// What a link points at.
    pub(in crate::image) fn link(self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(in crate::image) fn mode(self) -> Result<u32> {
        let mode = numeric(&self.0[100..108]).context("malformed mode")?;
        Ok(mode as u32 & 0o7777)
    }

    pub(in crate::image) fn uid(self) -> Result<u64> {
        self.unsigned(108..116, "owner")
    }

    pub(in crate::image) fn gid(self) -> Result<u64> {
        self.unsigned(116..124, "group")
    }

    /// Bytes that follow in the archive.
    pub(in crate::image) fn size(self) -> Result<u64> {
        self.unsigned(124..136, "size")
    }

    /// Seconds since 1970.
    pub(in crate::image) fn mtime(self) -> Result<i64> {
        numeric(&self.0[136..148]).context("malformed time")
    }

    /// Major and minor number; archives older than ustar have none.
    pub(in crate::image) fn device(self) -> Result<(u32, u32)> {
        if &self.0[257..262] != b"ustar" {
            return Ok((0, 0));
        }
        let number =
            |range| u32::try_from(self.unsigned(range, "device number")?).context("device number out of range");
        Ok((number(329..337)?, number(337..345)?))
    }

    fn unsigned(self, range: std::ops::Range<usize>, what: &str) -> Result<u64> {
        let value = numeric(&self.0[range]).with_context(|| format!("malformed {what}"))?;
        u64::try_from(value).with_context(|| format!("negative {what}"))
    }
}

/// The sum of a header's bytes, its own field taken for blanks.
pub(in crate::image) fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    sum(block) - sum(&block[CHECKSUM]) + 8 * u32::from(b' ')
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// A numeric field: octal digits among blanks and NULs, none at all for zero; or, where the first bit is set,
/// two's complement in base 256, as star and GNU tar write what does not fit.
pub(super) fn numeric(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        // The first bit is the mark, the second the sign: spread it over the mark.
        let first = if negative { field[0] } else { field[0] & 0x7f };
        let mut value: i64 = if negative { -1 } else { 0 };
        for byte in std::iter::once(first).chain(field[1..].iter().copied()) {
            value = value.checked_mul(256)? | i64::from(byte);
        }
        return Some(value);
    }
    let blank = |byte: &u8| matches!(byte, 0 | b' ');
    let Some(start) = field.iter().position(|byte| !blank(byte)) else { return Some(0) };
    let end = field[start..].iter().position(blank).map_or(field.len(), |length| start + length);
    if !field[end..].iter().all(blank) {
        return None;
    }
    field[start..end].iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// The components of a member's name, without empty ones and `.`; none at all is the root itself. An
/// absolute name is taken from the root, as tar(1) and Docker do.
///
/// # Errors
/// A name that is empty, too long, or has `..` or a NUL in it.
pub(in crate::image) fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    check(name)?;
    let components: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|c| !matches!(*c, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        bail!("a name that leads upwards (..) is refused");
    }
    Ok(components)
}

/// Appends a name in its plain form, `a/b/c`; the root's is empty.
///
/// # Errors
/// As [`components`].
pub(in crate::image) fn normalise(name: &[u8], into: &mut Vec<u8>) -> Result<()> {
    check(name)?;
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => bail!("a name that leads upwards (..) is refused"),
            _ => {
                if !into.is_empty() {
                    into.push(b'/');
                }
                into.extend_from_slice(component);
            }
        }
    }
    Ok(())
}

fn check(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        bail!("a member has no name");
    }
    if name.len() > MAX_NAME {
        bail!("a member's name is longer than {MAX_NAME} bytes");
    }
    if name.contains(&0) {
        bail!("a name contains a NUL byte");
    }
    Ok(())
}

/// A name for messages: quoted, control characters escaped, shortened.
pub(in crate::image) fn shown(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
    if name.len() > 256 {
        text.push('…');
    }
    format!("{text:?}")
}

/// A decimal number without sign.
pub(in crate::image) fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_forms() {
        assert_eq!(numeric(b"0000644\0"), Some(0o644));
        assert_eq!(numeric(b"  644 \0 "), Some(0o644));
        assert_eq!(numeric(b"\0\0\0\0"), Some(0));
        assert_eq!(numeric(b"77777777777"), Some(0o77_777_777_777));
        assert_eq!(numeric(b"\x80\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(numeric(&[0xff; 12]), Some(-1));
        assert_eq!(numeric(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(numeric(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
        for field in [&b"08"[..], b"6 4", b"-1", b"0x1", b"7777777777777777777777777", b"\x80\0\0\x01\0\0\0\0\0\0\0\0"]
        {
            assert_eq!(numeric(field), None, "{field:?}");
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
