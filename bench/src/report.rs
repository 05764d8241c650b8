//! What a case found, and the three forms in which it is shown: a table on the terminal, Markdown, and
//! a chart.

pub(crate) mod goal;
pub(crate) mod markdown;
pub(crate) mod million;
pub(crate) mod svg;
pub(crate) mod table;

pub(crate) use goal::Goal;
pub(crate) use table::{Cell, Spread, Table};

/// What one case found.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// As on the command line, and the name of the chart's file.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What was done and what the numbers are, in Markdown.
    pub(crate) text: String,
    pub(crate) table: Table,
    /// What of it is drawn.
    pub(crate) chart: Option<Chart>,
    pub(crate) goals: Vec<Goal>,
}

/// What is drawn: bars in groups.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What the bars are.
    pub(crate) unit: &'static str,
    pub(crate) groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) head: Option<String>,
    /// By name.
    pub(crate) bars: Vec<(String, Cell)>,
}

impl Chart {
    /// A group for each of these columns of a table (by number from 0, the rows' names not counted), and
    /// in it a bar for each row.
    pub(crate) fn of(table: &Table, unit: &'static str, columns: &[usize]) -> Self {
        let group = |&column: &usize| {
            let head = table.columns.get(column).filter(|_| columns.len() > 1).cloned();
            let bar = |(name, cells): &(String, Vec<Cell>)| {
                Some((name.clone(), cells.get(column)?.clone()))
            };
            Group { head, bars: table.rows.iter().filter_map(bar).collect() }
        };
        Self { unit, groups: columns.iter().map(group).collect() }
    }
}
