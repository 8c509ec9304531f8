//! Platforms: what an image is for, and what this machine is (image-index.md).

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Operating system and processor that an image is for, in Go's words (`linux/amd64`, `linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        Platform { os: "linux".into(), architecture: architecture().into(), variant: None }
    }

    /// Whether an image for `offered` is what somebody who asks for `self` wants. A variant counts where
    /// it was asked for; `arm64` and `arm64/v8` are the same.
    pub fn accepts(&self, offered: &Platform) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.level().is_none() || self.level() == offered.level())
    }

    /// Whether each processor of this platform runs what is for `offered`, so that it may be chosen unasked.
    pub(super) fn is_met_by(&self, offered: &Platform) -> bool {
        self.architecture == "arm" || self.level() == offered.level()
    }

    /// The variant, where it says more than the architecture does.
    fn level(&self) -> Option<&str> {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        match (self.architecture.as_str(), variant) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) => None,
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = anyhow::Error;

    /// Parses `--platform`: `os/arch[/variant]`, or an architecture or `linux` alone; common other names of
    /// architectures (`x86_64`, `aarch64`, `armhf`) are understood.
    fn from_str(text: &str) -> Result<Platform> {
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| word(part)) {
            return Err(Failure::usage(format!("{text:?} is an invalid platform: expected os/architecture[/variant]"))
                .with_hint("for example linux/arm64")
                .into());
        }
        let host = Platform::host();
        let (os, architecture, variant) = match parts[..] {
            ["linux"] => ("linux", host.architecture.as_str(), None),
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant, ..] => (os, architecture, Some(variant)),
            [] => ("linux", host.architecture.as_str(), None),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" | "x86" => ("386", None),
            other => (other, None),
        };
        let variant = variant.or(implied).map(str::to_owned);
        Ok(Platform { os: os.into(), architecture: architecture.into(), variant })
    }
}

/// This machine's architecture, as image configs call it.
pub(in crate::image) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
