//! The flag `--platform`.

use anyhow::Result;
use clap::ArgMatches;

use super::spec;
use crate::image::oci::platform::Platform;

/// `--platform`.
pub(super) fn read(matches: &ArgMatches) -> Result<Option<Platform>> {
    let text = spec::text(matches, "platform").filter(|text| !text.is_empty());
    text.map(|text| text.parse()).transpose()
}
