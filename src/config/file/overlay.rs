//! Settings over settings: a route's over its group's, and those over the variables'. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeValue;

use super::FileFault;
use super::values::{Entry, kind_of, text_of};
use crate::config::settings::Readings;
use crate::config::{Config, Fault, Settings, UpstreamName, contradictions};

/// Settings as far as they are known, and where those stand that the file says.
#[derive(Clone)]
pub(super) struct Overlay<'t> {
    pub(super) config: Config,
    settings: Settings,
    /// By variable.
    said: BTreeMap<&'static str, Said<'t>>,
}

#[derive(Clone)]
struct Said<'t> {
    key: &'t str,
    value: Range<usize>,
}

impl<'t> Overlay<'t> {
    /// Those of the variables.
    pub(super) fn of_variables(settings: &Settings, config: Config) -> Self {
        Self { config, settings: settings.clone(), said: BTreeMap::new() }
    }

    /// Whether the file says this setting, rightly or not.
    pub(super) fn says(&self, variable: &str) -> bool {
        self.said.contains_key(variable)
    }

    /// Whether an item of the destination needs a port, and there is none.
    pub(super) fn lacks_port(&self) -> bool {
        let needs_port = |name: &UpstreamName| !matches!(name, UpstreamName::Service(_));
        self.config.destination_port == 0 && self.config.destination_hostname.iter().any(needs_port)
    }

    /// Takes a setting of the file in the place of what there was.
    pub(super) fn set(&mut self, entry: &Entry<'t>, faults: &mut Vec<FileFault>) {
        let Entry { key, value, .. } = entry;
        let at = value.span();
        let Some(text) = text_of(value.get_ref()) else {
            let title = format!(
                "{key} is {}: give text, a number, true or false, or a list of them",
                kind_of(value.get_ref())
            );
            return faults.push(FileFault::new(at, title));
        };
        let Some((variable, read)) = self.config.set(&key.to_uppercase(), &text) else { return };
        self.said.insert(variable, Said { key, value: at.clone() });
        self.settings.set(variable, text);
        for (part, rule) in read.err().into_iter().flatten() {
            let at = item_of(value.get_ref(), &part).unwrap_or_else(|| at.clone());
            faults.push(FileFault::new(at, format!("{key} = {part:?}: {rule}")));
        }
    }

    /// Adds the contradictions between these settings that were not there below.
    pub(super) fn contradictions(&self, below: &Self, faults: &mut Vec<FileFault>) {
        let before = below.all_contradictions();
        for fault in self.all_contradictions() {
            let Fault::Contradiction { one, other, rule } = &fault else { continue };
            // What is missing of a destination is told by name.
            let is_half = [one, other].iter().all(|text| text.starts_with("DESTINATION_"));
            if is_half || before.contains(&fault) {
                continue;
            }
            let said = |text: &str| {
                let variable = text.split('=').next().unwrap_or_default();
                // `DESTINATION_HOSTNAME=app DESTINATION_PORT=80` is one of them.
                let second = text.split_once(' ').and_then(|(_, rest)| rest.split('=').next());
                self.said.get(variable).or_else(|| self.said.get(second?))
            };
            let mut places: Vec<_> = [said(one), said(other)].into_iter().flatten().collect();
            places.sort_by_key(|said| std::cmp::Reverse(said.value.start));
            let title = format!("{one} and {other} contradict: {rule}");
            let Some(last) = places.first() else { continue };
            let fault = FileFault::new(last.value.clone(), title);
            faults.push(match places.get(1) {
                Some(first) => fault.also(first.value.clone(), format!("{} is here", first.key)),
                None => fault,
            });
        }
    }

    fn all_contradictions(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        contradictions::check(&self.settings, &Readings::from(self.config.clone()), &mut faults);
        faults
    }
}

/// Where an item of a list stands that has this text.
fn item_of(value: &DeValue<'_>, text: &str) -> Option<Range<usize>> {
    let DeValue::Array(items) = value else { return None };
    let is_it = |item: &&toml::Spanned<DeValue<'_>>| {
        text_of(item.get_ref()).is_some_and(|item| item.trim() == text)
    };
    items.iter().find(is_it).map(toml::Spanned::span)
}
