//! Tables of numbers with their spread.

use std::fmt;

/// The median of some rounds, and the least and the most of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of no value at all it is zero.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last - last / 2));
        Self { median, least: at(0), most: at(last) }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// A number of several rounds, with so many digits behind the point.
    Number(Spread, usize),
    /// A number that has no spread.
    Exact(f64, usize),
    /// There is none, because the proxy does not do this.
    Cannot(&'static str),
    /// There is none.
    None,
}

impl Cell {
    pub(crate) fn spread(&self) -> Option<Spread> {
        match *self {
            Self::Number(spread, _) => Some(spread),
            Self::Exact(value, _) => Some(Spread { median: value, least: value, most: value }),
            Self::Cannot(_) | Self::None => None,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(spread, digits) => write!(
                out,
                "{} ({} to {})",
                number(spread.median, *digits),
                number(spread.least, *digits),
                number(spread.most, *digits)
            ),
            Self::Exact(value, digits) => out.write_str(&number(*value, *digits)),
            Self::Cannot(why) => out.write_str(why),
            Self::None => out.write_str("–"),
        }
    }
}

/// A number with commas between thousands.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// A table. Each row has a name and as many cells as there are columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// What the rows are.
    pub(crate) corner: &'static str,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// The number in this row and column.
    pub(crate) fn get(&self, row: &str, column: usize) -> Option<Spread> {
        let (_, cells) = self.rows.iter().find(|(name, _)| name == row)?;
        cells.get(column)?.spread()
    }

    /// All of it as text, the head first.
    pub(crate) fn lines(&self) -> Vec<Vec<String>> {
        let mut head = vec![self.corner.to_owned()];
        head.extend(self.columns.iter().cloned());
        let rows = self.rows.iter().map(|(name, cells)| {
            let cells = cells.iter().map(ToString::to_string);
            std::iter::once(name.clone()).chain(cells).collect()
        });
        std::iter::once(head).chain(rows).collect()
    }
}

/// As it is on a terminal.
impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                if column == 0 {
                    write!(out, "  {cell:<width$}")?;
                } else {
                    write!(out, "  {cell:>width$}")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Spread, number};

    #[test]
    fn median_of_an_even_number_is_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(1_234_567.89, 1), "1,234,567.9");
        assert_eq!(number(-1234.0, 0), "-1,234");
        assert_eq!(number(123.0, 0), "123");
    }
}
