//! Columns for a terminal.

use std::fmt::Write;

use anstyle::Style;
use av_proto::text::one_line;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::output::{HEADING, PLAIN};

/// The space between two columns.
const GAP: usize = 2;
/// A column is never cut below this: less says nothing.
const LEAST: usize = 6;
/// Where a column would be cut below this, optional ones go first.
const COMFORT: usize = 14;

/// A table, filled row by row.
#[derive(Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    whole: &'static [usize],
    optional: &'static [usize],
}

/// One text in a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a colour. The text is made safe for a line.
    #[must_use]
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: one_line(text.as_ref()),
            style,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, PLAIN)
    }
}

impl Table {
    /// An empty table with these columns; one whose heading is empty has none.
    #[must_use]
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
            whole: &[],
            optional: &[],
        }
    }

    /// The same, with columns that are never cut, such as an address.
    #[must_use]
    pub fn whole(mut self, columns: &'static [usize]) -> Self {
        self.whole = columns;
        self
    }

    /// The same, with columns that a narrow terminal does without, the first
    /// to go first.
    #[must_use]
    pub fn optional(mut self, columns: &'static [usize]) -> Self {
        self.optional = columns;
        self
    }

    /// Adds a row; it has one cell for each column.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// How many rows it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line at most `width` columns wide where that is
    /// given and can be had: optional columns go, then the widest are cut.
    /// Columns with nothing in them are left out.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        let mut shown: Vec<usize> = (0..self.header.len())
            .filter(|&column| {
                self.rows
                    .iter()
                    .any(|row| row.get(column).is_some_and(|cell| !cell.text.is_empty()))
            })
            .collect();
        let natural: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| cell.text.width())
                    .chain([self.header[column].width()])
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let width = width.unwrap_or(usize::MAX);
        for &optional in self.optional {
            let least: usize = shown
                .iter()
                .map(|&column| GAP + natural[column].min(self.least(column, COMFORT)))
                .sum();
            if least <= width.saturating_add(GAP) {
                break;
            }
            shown.retain(|&column| column != optional);
        }
        let mut widths: Vec<(usize, usize)> = shown
            .iter()
            .map(|&column| (natural[column], self.least(column, LEAST)))
            .collect();
        fit(&mut widths, width);
        let widths: Vec<usize> = widths.into_iter().map(|(width, _)| width).collect();
        let mut text = String::new();
        if self.header.iter().any(|heading| !heading.is_empty()) {
            let cells = shown.iter().map(|&column| (self.header[column], HEADING));
            line(&mut text, cells, &widths);
        }
        for row in &self.rows {
            let cells = shown
                .iter()
                .filter_map(|&column| row.get(column))
                .map(|cell| (cell.text.as_str(), cell.style));
            line(&mut text, cells, &widths);
        }
        text
    }

    /// The least width of a column; one that is never cut has no other.
    fn least(&self, column: usize, otherwise: usize) -> usize {
        if self.whole.contains(&column) {
            usize::MAX
        } else {
            otherwise
        }
    }
}

/// Takes from the widest of the columns, each given with the least that it
/// can do with, until the line fits or nothing more can be taken.
fn fit(widths: &mut [(usize, usize)], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().map(|(now, _)| now).sum::<usize>() + gaps > width {
        match widths.iter_mut().filter(|(now, least)| now > least).max() {
            Some((widest, _)) => *widest -= 1,
            None => return,
        }
    }
}

fn line<'a>(text: &mut String, cells: impl Iterator<Item = (&'a str, Style)>, widths: &[usize]) {
    let mut pad = 0;
    for ((cell, style), &width) in cells.zip(widths) {
        let cut = cut(cell, width);
        // Written late, so that no line ends in spaces.
        if !cut.is_empty() {
            text.extend(std::iter::repeat_n(' ', pad));
            pad = 0;
            // Writing to a String does not fail.
            let _ = write!(text, "{style}{cut}{style:#}");
        }
        pad += width - cut.width() + GAP;
    }
    text.push('\n');
}

/// The text in at most `width` columns, the last an ellipsis where something
/// was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let mut kept = String::new();
    for c in text.chars() {
        let wide = c.width().unwrap_or_default();
        if wide > room {
            break;
        }
        room -= wide;
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::GOOD;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "ROOM", "DETAIL"]);
        table.row(["Écran é".into(), "".into(), "standby".into()]);
        table.row(["投影机".into(), "".into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let text = anstream::adapter::strip_str(&table().render(None)).to_string();
        assert_eq!(
            text,
            "NAME     DETAIL\n\
             Écran é  standby\n\
             投影机\n"
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest() {
        let mut table = table();
        table.row(["b".into(), "".into(), "a long story about a lamp".into()]);
        let text = anstream::adapter::strip_str(&table.render(Some(20))).to_string();
        assert_eq!(
            text,
            "NAME     DETAIL\n\
             Écran é  standby\n\
             投影机\n\
             b        a long sto…\n"
        );
        for width in 0..40 {
            for line in anstream::adapter::strip_str(&table.render(Some(width)))
                .to_string()
                .lines()
            {
                assert!(
                    line.width() <= width.max(2 * LEAST + GAP),
                    "{width}: {line}"
                );
            }
        }
    }

    #[test]
    fn a_narrow_terminal_does_without_some_columns_and_others_stay_whole() {
        let mut table = Table::new(&["IP", "DRIVER", "PLACE", "DETAIL"])
            .whole(&[0])
            .optional(&[1, 2]);
        table.row([
            "192.168.100.200".into(),
            "pjlink".into(),
            "Building A/1/Room 101".into(),
            "authentication failed".into(),
        ]);
        for (width, row) in [
            (
                100,
                "192.168.100.200  pjlink  Building A/1/Room 101  authentication failed\n",
            ),
            (
                60,
                "192.168.100.200  pjlink  Building A/1/Roo…  authentication …\n",
            ),
            (50, "192.168.100.200  Building A/1/Ro…  authentication…\n"),
            (40, "192.168.100.200  authentication failed\n"),
            (30, "192.168.100.200  authenticati…\n"),
            (10, "192.168.100.200  authe…\n"),
        ] {
            let text = anstream::adapter::strip_str(&table.render(Some(width))).to_string();
            assert_eq!(text.split_inclusive('\n').nth(1), Some(row), "{width}");
        }
    }

    #[test]
    fn hostile_text_stays_on_its_line_and_colours_are_ours() {
        let mut table = Table::new(&["", ""]);
        table.row(["a\n\u{1b}[31mb".into(), Cell::styled("ok", GOOD)]);
        let text = table.render(None);
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains("\u{1b}[31mb"), "{text:?}");
        assert!(text.contains("\u{1b}[32mok"), "{text:?}");
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("投影机", 6), "投影机");
        assert_eq!(cut("投影机", 5), "投影…");
        assert_eq!(cut("投影机", 4), "投…");
        assert_eq!(cut("abc", 0), "…");
    }
}
