//! What containers are known by.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::sys::random;

/// A container's id: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks that `text` is an id in full.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| ContainerId(text.to_owned()))
    }

    /// A new random id. Never one whose first twelve digits are all decimal, because that is also
    /// the default host name and some programs take an all-digit host name for a number.
    pub fn random() -> std::io::Result<Self> {
        loop {
            let mut bytes = [0u8; 32];
            random::fill(&mut bytes)?;
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            if hex.as_bytes()[..12].iter().any(u8::is_ascii_lowercase) {
                return Ok(ContainerId(hex));
            }
        }
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as listings show them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for ContainerId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        ContainerId::parse(&text).ok_or_else(|| format!("{text:?} is not a container id"))
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
