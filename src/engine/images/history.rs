//! `history`: how an image came to be, as its config tells it.

use anyhow::Result;
use jiff::Timestamp;
use serde::Deserialize;

use super::{check_platform, no_such_image};
use crate::engine::Engine;
use crate::image::Store;
use crate::image::oci::platform::Platform;

/// A step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id at the last step; of the steps before nobody kept one.
    pub id: Option<String>,
    /// When.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// Bytes of the layer that it made; 0 when it made none.
    pub size: u64,
    /// What was said about it.
    pub comment: String,
}

/// An entry in a config (OCI image spec, config.md).
#[derive(Deserialize)]
struct Recorded {
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    empty_layer: Option<bool>,
}

impl Engine {
    /// The steps of an image's making, the last one first. Layers that the config tells nothing of come last of
    /// all, as steps without words.
    ///
    /// # Errors
    /// No such image; one for another platform than `platform`; a damaged config.
    pub fn image_history(&self, reference: &str, platform: Option<&Platform>) -> Result<Vec<HistoryEntry>> {
        let store = Store::open(&self.layout);
        let image = store.get(reference)?.ok_or_else(|| no_such_image(reference))?;
        let config = store.config_document(&image.id)?.ok_or_else(|| no_such_image(reference))?;
        check_platform(reference, &config, platform)?;
        let recorded = config.get("history").cloned().unwrap_or_default();
        let sizes: Vec<u64> = image.layers.iter().map(|layer| store.size_of_layer(layer)).collect();
        Ok(entries(recorded, &sizes, &image.id))
    }
}

/// What is no list of entries is no history.
fn entries(recorded: serde_json::Value, sizes: &[u64], id: &str) -> Vec<HistoryEntry> {
    let recorded: Vec<Recorded> = serde_json::from_value(recorded).unwrap_or_default();
    let made = recorded.iter().filter(|entry| entry.empty_layer != Some(true)).count();
    // Those below the ones that are told of.
    let mut sizes = sizes.iter().copied();
    let silent = sizes.len().saturating_sub(made);
    let mut entries: Vec<HistoryEntry> =
        sizes.by_ref().take(silent).map(|size| HistoryEntry { size, ..HistoryEntry::default() }).collect();
    for entry in recorded {
        let size = if entry.empty_layer == Some(true) { None } else { sizes.next() };
        entries.push(HistoryEntry {
            id: None,
            created: entry.created.and_then(|text| text.parse().ok()),
            created_by: entry.created_by.unwrap_or_default(),
            size: size.unwrap_or_default(),
            comment: entry.comment.unwrap_or_default(),
        });
    }
    entries.reverse();
    if let Some(last) = entries.first_mut() {
        last.id = Some(id.to_owned());
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_steps_are_matched() {
        let sizes = |recorded: serde_json::Value, sizes: &[u64]| -> Vec<u64> {
            entries(recorded, sizes, "sha256:x").iter().map(|entry| entry.size).collect()
        };
        let step = serde_json::json!({"created_by": "x"});
        let empty = serde_json::json!({"empty_layer": true});
        assert_eq!(sizes(serde_json::json!([step, empty, step, empty]), &[1, 2]), [0, 2, 0, 1]);
        assert_eq!(sizes(serde_json::Value::Null, &[1, 2]), [2, 1]);
        assert_eq!(sizes(serde_json::json!([step]), &[1, 2, 3]), [3, 2, 1]);
        // More steps than layers.
        assert_eq!(sizes(serde_json::json!([step, step, step]), &[1]), [0, 0, 1]);
        assert_eq!(sizes(serde_json::json!("nonsense"), &[]), [0; 0]);
        let entries = entries(serde_json::json!([step, empty]), &[1], "sha256:x");
        assert_eq!(entries[0].id.as_deref(), Some("sha256:x"));
        assert_eq!((entries[1].id.as_ref(), entries[1].created_by.as_str()), (None, "x"));
    }
}
