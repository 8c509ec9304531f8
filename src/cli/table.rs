//! Tables as Docker prints them: columns of at least ten places, three blanks between, never
//! wrapped or cut; the last cell of a row is not padded.

/// Narrowest column.
const MIN_WIDTH: usize = 10;
/// Blanks between columns.
const GAP: usize = 3;

/// Rows of cells to text. Cells must be free of control characters.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        // A row's last cell takes no part, or a long last cell would widen an inner column of another row.
        for (width, cell) in widths.iter_mut().zip(row.iter().take(row.len().saturating_sub(1))) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < row.len() {
                let width = (widths.get(index).copied().unwrap_or(0) + GAP).max(MIN_WIDTH);
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
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
