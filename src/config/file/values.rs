//! Values of a file, and the text that a variable would have in their place. Pure.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FileFault, FileReader};

/// A key, and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: &'t str,
    /// Where the key stands.
    pub(super) at: Range<usize>,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

/// What a table has, in the order of the file.
pub(super) fn entries<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let mut all: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry { key: key.get_ref(), at: key.span(), value })
        .collect();
    all.sort_by_key(|entry| entry.at.start);
    all
}

/// What it is, for a sentence.
pub(super) const fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The text that a variable has for a value: of a list its items, with commas.
pub(super) fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Boolean(on) => Some(String::from(if *on { "on" } else { "off" })),
        DeValue::Array(items) => {
            let one = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::Array(_) => None,
                item => text_of(item),
            };
            items.iter().map(one).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

impl<'t> FileReader<'t> {
    /// The text of an entry that has to be text.
    pub(super) fn text(
        &mut self,
        entry: &Entry<'t>,
        rule: &str,
    ) -> Option<(&'t str, Range<usize>)> {
        match entry.value.get_ref() {
            DeValue::String(text) => Some((text, entry.value.span())),
            other => {
                let title = format!("{} is {}: {rule}", entry.key, kind_of(other));
                self.faults.push(FileFault::new(entry.value.span(), title));
                None
            }
        }
    }

    /// What an entry says that has to be `true` or `false`.
    pub(super) fn yes_or_no(&mut self, entry: &Entry<'t>) -> Option<bool> {
        match entry.value.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            other => {
                let title = format!("{} is {}: give true or false", entry.key, kind_of(other));
                self.faults.push(FileFault::new(entry.value.span(), title));
                None
            }
        }
    }

    /// The texts of an entry that has to be text, or a list of texts, each with its place.
    pub(super) fn texts(&mut self, entry: &Entry<'t>, rule: &str) -> Vec<(&'t str, Range<usize>)> {
        let DeValue::Array(items) = entry.value.get_ref() else {
            return self.text(entry, rule).into_iter().collect();
        };
        let item = |value| Entry { key: entry.key, at: entry.at.clone(), value };
        items.iter().filter_map(|value| self.text(&item(value), rule)).collect()
    }

    /// What a table has; nothing, and a fault, where it is none.
    pub(super) fn table(&mut self, entry: &Entry<'t>, rule: &str) -> Vec<Entry<'t>> {
        match entry.value.get_ref() {
            DeValue::Table(table) => entries(table),
            other => {
                let title = format!("{} is {}: {rule}", entry.key, kind_of(other));
                self.faults.push(FileFault::new(entry.value.span(), title));
                Vec::new()
            }
        }
    }
}
