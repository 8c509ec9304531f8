//! SHA-256 digests: the names of everything in the store.

use std::fmt;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use crate::error::Failure;

/// A SHA-256 digest. Holding one proves that the text is 64 lower-case hexadecimal digits, so it can
/// be a file name: whatever comes from a manifest or an archive passes through [`Digest::parse`] first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::finish(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that `hasher` was fed.
    pub fn finish(hasher: Sha256) -> Digest {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in hasher.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Digest(hex)
    }

    /// Parses `sha256:` and 64 hexadecimal digits (OCI image spec, descriptor.md).
    pub fn parse(text: &str) -> Result<Digest> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(Failure::engine(format!("unsupported digest {text:?}: only sha256:<64 hex digits> is")).into());
        };
        Digest::from_hex(hex).ok_or_else(|| {
            Failure::engine(format!("invalid digest {text:?}: 64 lower-case hexadecimal digits must follow sha256:"))
                .into()
        })
    }

    /// The digest with these 64 hexadecimal digits; `None` when they are not.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        (hex.len() == 64 && is_hex(hex)).then(|| Digest(hex.to_owned()))
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Whether `text` consists of lower-case hexadecimal digits.
pub(in crate::image) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_become_a_digest() {
        let empty = Digest::of(b"");
        assert_eq!(empty.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest::parse(&empty.to_string()).unwrap(), empty);
        for text in ["sha256:../../etc/passwd", "sha256:ab", "sha512:ab", "", &empty.to_string().to_uppercase()] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        assert!(Digest::parse(&format!("sha256:{}", "G".repeat(64))).is_err());
        assert!(Digest::parse(&format!("sha256:{}/", "a".repeat(63))).is_err());
    }
}
