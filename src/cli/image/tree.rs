//! `images --tree`: each image with its layers, lowest first.

use crate::cli::output::printable;
use crate::cli::table::short_id;
use crate::cli::{quantity, table};
use crate::engine::images::ListedImage;

/// The whole tree.
pub(super) fn render(images: &[ListedImage]) -> String {
    let mut rows = vec![["IMAGE", "ID", "SIZE", "EXTRA"].map(str::to_owned).to_vec()];
    for listed in images {
        let image = &listed.image;
        let names = match image.references.is_empty() {
            true if image.digests.is_empty() => "<untagged>".to_owned(),
            true => image.digests.join(", "),
            false => image.references.join(", "),
        };
        let usage = listed.usage.clone().unwrap_or_default();
        let users = match usage.containers.as_slice() {
            [] => String::new(),
            names => format!("used by {}", names.join(", ")),
        };
        rows.push(vec![
            printable(&names),
            short_id(&image.id, true),
            quantity::human_size(image.size),
            printable(&users),
        ]);
        for (index, layer) in usage.layers.iter().enumerate() {
            let branch = if index + 1 == usage.layers.len() { "└─ layer" } else { "├─ layer" };
            let extra = match layer.others {
                0 => String::new(),
                1 => "shared with 1 image".to_owned(),
                count => format!("shared with {count} images"),
            };
            let size = quantity::human_size(layer.size);
            rows.push(vec![branch.to_owned(), short_id(&layer.diff_id, true), size, extra]);
        }
    }
    table::align(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::images::{ImageSummary, LayerUse, SharedUse};

    #[test]
    fn layers_hang_below_their_image() {
        let layer =
            |letter: &str, size, others| LayerUse { diff_id: format!("sha256:{}", letter.repeat(64)), size, others };
        let image = ImageSummary {
            id: format!("sha256:{}", "0".repeat(64)),
            references: vec!["a:1".into()],
            size: 3000,
            ..ImageSummary::default()
        };
        let usage = SharedUse {
            containers: vec!["c\u{1b}1".into()],
            shared: 1000,
            layers: vec![layer("a", 1000, 1), layer("b", 2000, 0)],
        };
        let text = render(&[ListedImage { image, usage: Some(usage) }]);
        assert_eq!(
            text,
            "IMAGE      ID             SIZE      EXTRA\n\
             a:1        000000000000   3kB       used by c\\u{1b}1\n\
             ├─ layer   aaaaaaaaaaaa   1kB       shared with 1 image\n\
             └─ layer   bbbbbbbbbbbb   2kB\n"
        );
    }
}
