//! The conditions of a route, and what it changes in heads. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use toml::de::DeValue;

use super::values::Entry;
use super::{FileFault, FileReader, RouteKeys};
use crate::config::UpstreamName;
use crate::config::routing::{HeadChanges, HostPattern, PathPattern};
use crate::http::changes::{can_be_asked_for, can_be_changed, is_field_name, is_field_value};

const HOST_RULE: &str = "give a host as it stands in Host, without port, as app.example.com, *.example.com for all names \
                         below a domain, 10.0.0.5 or [fd00::5]; or a list of them; names as browsers send them (xn--…)";
const PATH_RULE: &str = "a path begins with '/' and has visible ASCII characters that a URI may hold, without '?' and '#'";
const PREFIX_RULE: &str = "a prefix ends without '/': /chat takes /chat and all behind it, /chat/…";
const CLEAR_RULE: &str = "write a path without '//', '.' and '..' as segments, and without '%': a request that says them \
                          would be taken by one reader for this one, and by another for another one";

impl<'t> FileReader<'t> {
    /// Reads a condition. False if it is none.
    pub(super) fn condition(&mut self, entry: &Entry<'t>, keys: &mut RouteKeys<'t>) -> bool {
        let conditions = &mut keys.conditions;
        match entry.key {
            "host" => {
                for (text, at) in self.texts(entry, HOST_RULE) {
                    match host(text) {
                        Some(host) if conditions.hosts.contains(&host) => {
                            self.faults.push(FileFault::new(
                                at,
                                format!("host = {text:?}: give each host once"),
                            ));
                        }
                        Some(host) => conditions.hosts.push(host),
                        None => self
                            .faults
                            .push(FileFault::new(at, format!("host = {text:?}: {HOST_RULE}"))),
                    }
                }
                if matches!(entry.value.get_ref(), DeValue::Array(hosts) if hosts.is_empty()) {
                    let title = "host is empty: leave it out where every host is meant";
                    self.faults.push(FileFault::new(entry.value.span(), title));
                }
            }
            key @ ("path" | "path_prefix") => {
                let is_prefix = key == "path_prefix";
                let Some((text, at)) = self.text(entry, PATH_RULE) else { return true };
                if let Some(rule) = wrong_path(text, is_prefix) {
                    keys.has_bad_path = true;
                    self.faults.push(FileFault::new(at, format!("{key} = {text:?}: {rule}")));
                } else if let Some(first) = keys.path.replace(entry.at.clone()) {
                    let title = "path and path_prefix contradict: give one of them";
                    self.faults
                        .push(FileFault::new(entry.at.clone(), title).also(first, "the other one"));
                } else if is_prefix {
                    conditions.path = PathPattern::Prefix(text.to_owned());
                } else {
                    conditions.path = PathPattern::Exact(text.to_owned());
                }
            }
            "headers" => {
                let rule = "give the fields that a request must have, as { x-tenant = \"blue\" }";
                for field in self.table(entry, rule) {
                    if let Some(header) = self.header(&field, "headers") {
                        if conditions.headers.iter().any(|(name, _)| *name == header.0) {
                            let title = format!("{}: this field is there twice", field.key);
                            self.faults.push(FileFault::new(field.at.clone(), title));
                        } else {
                            conditions.headers.push(header);
                        }
                    }
                }
            }
            "upgrade" => conditions.upgrade = self.yes_or_no(entry),
            _ => return false,
        }
        true
    }

    /// A field, its name in lower case.
    fn header(&mut self, field: &Entry<'t>, of: &str) -> Option<(String, String)> {
        let name = self.header_name(field.key, &field.at, of);
        let (value, at) = self.text(field, "give the value of the field")?;
        if !is_field_value(value) {
            let title = format!(
                "{} = {value:?}: a value has visible ASCII characters, and spaces between them (RFC 9110, section 5.5)",
                field.key
            );
            self.faults.push(FileFault::new(at, title));
            return None;
        }
        Some((name?, value.to_owned()))
    }

    fn header_name(&mut self, name: &str, at: &Range<usize>, of: &str) -> Option<String> {
        let is_condition = of == "headers";
        let is_free = if is_condition { can_be_asked_for(name) } else { can_be_changed(name) };
        let rule = if !is_field_name(name) {
            "the name of a field has letters, digits and signs as '-' (RFC 9110, section 5.1)"
        } else if is_condition && name.eq_ignore_ascii_case("host") {
            "this is what host is for"
        } else if !is_free {
            "what this field says is elbows' to say, or is of one connection only"
        } else {
            return Some(name.to_ascii_lowercase());
        };
        self.faults.push(FileFault::new(at.clone(), format!("{name}: {rule}")));
        None
    }

    /// Reads which fields are set and removed.
    pub(super) fn changes(&mut self, entry: &Entry<'t>, changes: &mut HeadChanges) {
        let rule =
            "give what is set and removed, as { set = { x-a = \"b\" }, remove = [\"cookie\"] }";
        for part in self.table(entry, rule) {
            match part.key {
                "set" => {
                    for field in self.table(&part, "give fields, as { x-a = \"b\" }") {
                        let header = self.header(&field, "set");
                        if let Some((name, value)) = header {
                            // As it is written in the file.
                            let is_there = changes
                                .set
                                .iter()
                                .any(|(other, _)| other.eq_ignore_ascii_case(&name));
                            if is_there {
                                let title = format!("{}: this field is there twice", field.key);
                                self.faults.push(FileFault::new(field.at.clone(), title));
                            } else {
                                changes.set.push((field.key.to_owned(), value));
                            }
                        }
                    }
                }
                "remove" => {
                    for (name, at) in self.texts(&part, "give names of fields, as [\"cookie\"]") {
                        changes.remove.extend(self.header_name(name, &at, "remove"));
                    }
                }
                _ => self.unknown(&part, &["set", "remove"].map(String::from)),
            }
        }
    }

    /// What is left out of the path is the prefix.
    pub(super) fn see_to_strip(&mut self, keys: &mut RouteKeys<'t>) {
        let Some((true, at)) = &keys.strip else { return };
        if let PathPattern::Prefix(prefix) = &keys.conditions.path
            && prefix != "/"
        {
            keys.changes.strip = prefix.len();
        } else if !keys.has_bad_path {
            let title = "strip_prefix needs a path_prefix, and one that is longer than '/'";
            self.faults.push(FileFault::new(at.clone(), title));
        }
    }
}

fn host(text: &str) -> Option<HostPattern> {
    let lower = text.to_ascii_lowercase();
    if let Some(domain) = lower.strip_prefix("*.") {
        return is_name(domain).then(|| HostPattern::Below(domain.to_owned()));
    }
    let is_v6 = |text: &str| {
        text.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok())
    };
    let is_host = is_name(&lower) || lower.parse::<Ipv4Addr>().is_ok() || is_v6(&lower);
    is_host.then_some(HostPattern::Exact(lower))
}

/// A name without the root's dot.
fn is_name(text: &str) -> bool {
    !text.ends_with('.') && matches!(UpstreamName::read(text), Some(UpstreamName::Host(_)))
}

/// The rule that a path breaks, if it breaks one.
fn wrong_path(text: &str, is_prefix: bool) -> Option<&'static str> {
    let is_of_path =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    if !text.starts_with('/') || !text.bytes().all(is_of_path) {
        return Some(PATH_RULE);
    }
    if is_prefix && text.len() > 1 && text.ends_with('/') {
        return Some(PREFIX_RULE);
    }
    let is_clear = |segment: &str| !matches!(segment, "." | "..");
    let segments = text.split('/').skip(1);
    let is_empty_inside = text.contains("//");
    let is_wrong = text.contains('%') || is_empty_inside || !segments.into_iter().all(is_clear);
    is_wrong.then_some(CLEAR_RULE)
}
