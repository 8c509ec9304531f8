//! Tables as Docker prints them: columns of at least ten places, three blanks between, never
//! wrapped or cut; nothing behind the last cell of a row.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

/// Narrowest column, gap included.
const MIN_WIDTH: u16 = 10;
/// Blanks between columns.
const GAP: u16 = 3;

/// Rows of cells to text. Cells must be free of control characters.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    // Without arrangement nothing is ever wrapped: scripts cut these columns.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).add_rows(rows.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP)).set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(MIN_WIDTH)));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_dockers() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text =
            super::align(&[row(&["TAG", "CONTAINER ID", "PORTS", "NAMES"]), row(&["ä", "0123456789ab", "", "web"])]);
        assert_eq!(text, "TAG       CONTAINER ID   PORTS     NAMES\nä         0123456789ab             web\n");
    }
}
