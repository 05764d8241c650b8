//! What a case found, and the three forms in which it is shown: a table on the terminal, Markdown, and
//! a chart.

pub(crate) mod goal;
pub(crate) mod markdown;
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
    /// The columns of the table that the chart shows, and their unit.
    pub(crate) chart: Option<Chart>,
    pub(crate) goals: Vec<Goal>,
}

/// Which part of a table is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What the axis says.
    pub(crate) unit: &'static str,
    /// The columns, by number from 0, the row's name not counted.
    pub(crate) columns: Vec<usize>,
}
