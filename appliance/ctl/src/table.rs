//! Tables for eyes: columns that line up, also with Korean text, and pairs of name and value.
//!
//! Pure text. Programs read `--json`, so the layout here may change.

use unicode_width::UnicodeWidthStr;

/// Rows under a header. The last column is never padded, so that long reasons do no harm.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|&text| text.to_owned()).collect()],
        }
    }
    /// One more row; an empty cell is shown as `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let dash = |cell: String| if cell.is_empty() { "-".into() } else { cell };
        self.rows.push(cells.into_iter().map(dash).collect());
    }
    /// The lines, or `nothing` when there is no row under the header.
    pub(crate) fn print(&self, nothing: &str) -> String {
        if self.rows.len() < 2 {
            return format!("{nothing}\n");
        }
        aligned(&self.rows)
    }
}

/// Pairs of a name and a value, a line each; a value of several lines is kept in its column.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let mut rows = Vec::new();
    for (name, value) in pairs {
        let mut lines = value.lines();
        rows.push(vec![
            (*name).to_owned(),
            lines.next().unwrap_or("-").to_owned(),
        ]);
        rows.extend(lines.map(|line| vec![String::new(), line.to_owned()]));
    }
    aligned(&rows)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            // two blanks between columns; what follows the last one is cut below
            line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_double_width_text() {
        let mut table = Table::new(&["NIC", "NOTE"]);
        table.row(["data0".into(), "x".into()]);
        table.row(["대전".into(), String::new()]);
        assert_eq!(table.print("none"), "NIC    NOTE\ndata0  x\n대전   -\n");
    }

    #[test]
    fn an_empty_table_says_so_in_words() {
        assert_eq!(Table::new(&["NIC"]).print("no NIC"), "no NIC\n");
    }

    #[test]
    fn values_of_several_lines_stay_in_their_column() {
        let text = pairs(&[("a", "1".into()), ("links", "x\ny".into())]);
        assert_eq!(text, "a      1\nlinks  x\n       y\n");
    }
}
