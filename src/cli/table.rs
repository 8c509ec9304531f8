//! Tables as Docker prints them: columns of at least ten places (`top`: twenty), three blanks between, never
//! wrapped or cut; nothing behind the last cell of a row.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Narrowest column of a listing, gap included.
const MIN_WIDTH: u16 = 10;
/// Narrowest column of `top`, gap included.
const WIDE: u16 = 20;
/// Blanks between columns.
const GAP: u16 = 3;

/// Rows of cells to text. Cells must be free of control characters.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    columns(rows, MIN_WIDTH)
}

/// The same in the wider columns of `top`.
pub(super) fn align_wide(rows: &[Vec<String>]) -> String {
    columns(rows, WIDE)
}

fn columns(rows: &[Vec<String>], width: u16) -> String {
    let mut table = Table::new();
    // Without arrangement nothing is ever wrapped: scripts cut these columns.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP)).set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// At most so many characters, the last of them an ellipsis when something is left out.
pub(super) fn cut(text: &str, limit: usize, shorten: bool) -> String {
    if !shorten || text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// An id as listings show it.
pub(super) fn short_id(id: &str, shorten: bool) -> String {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    if shorten { digits.chars().take(12).collect() } else { id.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_dockers() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text =
            super::align(&[row(&["TAG", "CONTAINER ID", "PORTS", "NAMES"]), row(&["ä", "0123456789ab", "", "web"])]);
        assert_eq!(text, "TAG       CONTAINER ID   PORTS     NAMES\nä         0123456789ab             web\n");
        let text = super::align_wide(&[row(&["UID", "CMD"]), row(&["root", "sh -c  'a b'"])]);
        assert_eq!(text, "UID                 CMD\nroot                sh -c  'a b'\n");
    }
}
