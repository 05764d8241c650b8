//! The kinds of values that settings have: how each is read, written, and described.
//!
//! Pure, but for the number of cores. A kind knows its bounds, so that the sentence about a fault and the
//! documents name the same ones.

mod admin;
mod amount;
mod place;

use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use serde_json::{Value, json};
use tracing_subscriber::filter::{LevelFilter, Targets};

pub(super) use self::admin::*;
pub(super) use self::amount::*;
pub(super) use self::place::*;
use super::{ListenOn, Origins, Pace, Rate, TlvHeader, origins};
use crate::words::Word;

/// A part of a value, and the rule that it breaks.
pub(super) type Wrong = (String, String);

/// A kind of value.
pub(super) trait Kind {
    /// What it is read into.
    type Value;

    /// Reads it. `or` is what else may be given ("off, or "), for the sentence about a fault.
    fn read(&self, text: &str, or: &str) -> Result<Self::Value, Vec<Wrong>>;

    /// Writes it so that it can be read again.
    fn write(&self, value: &Self::Value) -> String;

    /// What holds where nothing is given and nothing need be.
    fn absent(&self) -> Option<Self::Value> {
        None
    }

    /// Its JSON schema in a file, for editors. They know less of a value than the check does.
    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }

    /// Which values may be given, as docs/configuration.md writes it.
    fn bounds(&self) -> String;
}

/// All of `text` breaks `rule`.
fn wrong<T>(text: &str, rule: impl Into<String>) -> Result<T, Vec<Wrong>> {
    Err(vec![(text.to_owned(), rule.into())])
}

/// As Markdown writes a value.
fn code(value: impl Display) -> String {
    format!("`{value}`")
}

fn codes<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(code).collect::<Vec<_>>().join(", ")
}

/// A word for nothing, or a value of another kind.
pub(super) struct Or<K>(pub(super) &'static str, pub(super) K);

impl<K: Kind> Kind for Or<K> {
    type Value = Option<K::Value>;

    fn read(&self, text: &str, _: &str) -> Result<Self::Value, Vec<Wrong>> {
        if text == self.0 {
            return Ok(None);
        }
        self.1.read(text, &format!("{}, or ", self.0)).map(Some)
    }

    fn write(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| self.0.to_owned(), |value| self.1.write(value))
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [{ "const": self.0 }, self.1.schema()] })
    }

    fn bounds(&self) -> String {
        format!("{}, or {}", code(self.0), self.1.bounds())
    }
}

/// One of the words of an enum.
pub(super) struct WordOf<T>(PhantomData<T>);

impl<T> WordOf<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Word> Kind for WordOf<T> {
    type Value = T;

    fn read(&self, text: &str, _: &str) -> Result<T, Vec<Wrong>> {
        one_of(text, T::WORDS, T::word)
    }

    fn write(&self, value: &T) -> String {
        value.word().to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "enum": T::WORDS.iter().map(|word| word.word()).collect::<Vec<_>>() })
    }

    fn bounds(&self) -> String {
        codes(T::WORDS.iter().map(|word| word.word()))
    }
}

pub(super) struct OnOff;

impl OnOff {
    const fn word(on: bool) -> &'static str {
        if on { "on" } else { "off" }
    }
}

impl Kind for OnOff {
    type Value = bool;

    fn read(&self, text: &str, _: &str) -> Result<bool, Vec<Wrong>> {
        one_of(text, &[true, false], Self::word)
    }

    fn write(&self, value: &bool) -> String {
        Self::word(*value).to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "enum": ["on", "off", true, false] })
    }

    fn bounds(&self) -> String {
        codes([true, false].map(Self::word))
    }
}

fn one_of<T: Copy>(
    text: &str,
    all: &[T],
    word: impl Fn(T) -> &'static str,
) -> Result<T, Vec<Wrong>> {
    let words: Vec<_> = all.iter().map(|value| word(*value)).collect();
    match all.iter().zip(&words).find(|(_, word)| **word == text) {
        Some((value, _)) => Ok(*value),
        None => wrong(text, format!("must be one of {}", words.join(", "))),
    }
}

/// TLVs that become request headers.
pub(super) struct TlvHeaders;

impl TlvHeaders {
    const NONE: &str = "none";
}

impl Kind for TlvHeaders {
    type Value = Vec<TlvHeader>;

    fn read(&self, text: &str, _: &str) -> Result<Vec<TlvHeader>, Vec<Wrong>> {
        match text {
            Self::NONE => return Ok(Vec::new()),
            "all" => return Ok(TlvHeader::ALL.to_vec()),
            _ => {}
        }
        let words = || TlvHeader::ALL.map(TlvHeader::as_str).join(", ");
        let mut tlvs = each(text, |item| {
            let found = TlvHeader::ALL.into_iter().find(|tlv| tlv.as_str() == item);
            found.ok_or_else(|| format!("must be all, none, or some of {}", words()))
        })?;
        // Each once, where it came first.
        let mut seen = [false; TlvHeader::COUNT];
        tlvs.retain(|tlv| {
            seen.get_mut(tlv.index()).is_some_and(|seen| !std::mem::replace(seen, true))
        });
        Ok(tlvs)
    }

    fn write(&self, value: &Vec<TlvHeader>) -> String {
        list(value.iter().map(|tlv| tlv.as_str()), Self::NONE)
    }

    fn schema(&self) -> Value {
        texts()
    }

    fn bounds(&self) -> String {
        format!("`none`, `all`, or some of {}", codes(TlvHeader::ALL.map(TlvHeader::as_str)))
    }
}

/// Reads a list; an error has every item that is wrong.
fn each<T>(text: &str, one: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Vec<Wrong>> {
    let mut values = Vec::new();
    let mut faults = Vec::new();
    for item in text.split(',').map(str::trim) {
        match one(item) {
            Ok(value) => values.push(value),
            Err(rule) => faults.push((item.to_owned(), rule)),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>, none: &str) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { none.to_owned() } else { items.join(",") }
}

/// The schema of a list: a text with commas, or texts.
fn texts() -> Value {
    json!({ "type": ["string", "array"], "items": { "type": "string" } })
}

/// The schema of what may be a number.
fn number() -> Value {
    json!({ "type": ["integer", "string"] })
}

/// Origins of pages.
pub(super) struct OriginList;

impl Kind for OriginList {
    type Value = Origins;

    fn read(&self, text: &str, or: &str) -> Result<Origins, Vec<Wrong>> {
        let items: Vec<_> = text.split(',').map(str::trim).collect();
        origins::parse(&items).or_else(|item| {
            wrong(
                &item,
                format!(
                    "give {or}origins, comma separated, as https://app.example.com, \
                     https://*.example.com, *.example.com, http://localhost:3000 or null; no path, and \
                     names as browsers send them (xn--…)"
                ),
            )
        })
    }

    fn write(&self, value: &Origins) -> String {
        value.to_string()
    }

    fn schema(&self) -> Value {
        texts()
    }

    fn bounds(&self) -> String {
        String::from(
            "some as `https://app.example.com`, `https://*.example.com`, `*.example.com`, \
             `http://localhost:3000`, `null`",
        )
    }
}

/// What is logged.
pub(super) struct Filter;

impl Filter {
    pub(super) const RULE: &str =
        "give error, warn, info, debug, trace or off, or target=level pairs, comma separated";

    pub(super) fn targets(text: &str) -> Option<Targets> {
        // A word alone that is no level would be the name of a target, and everything else be off.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let items_are_clear = text.split(',').all(|item| item.contains('=') || is_level(item));
        if items_are_clear { text.parse().ok() } else { None }
    }
}

impl Kind for Filter {
    type Value = String;

    fn read(&self, text: &str, _: &str) -> Result<String, Vec<Wrong>> {
        if Self::targets(text).is_some() { Ok(text.to_owned()) } else { wrong(text, Self::RULE) }
    }

    fn write(&self, value: &String) -> String {
        value.clone()
    }

    fn bounds(&self) -> String {
        let levels = codes(["error", "warn", "info", "debug", "trace", "off"]);
        format!("{levels}, or target=level pairs as `info,elbows=debug`")
    }
}

/// Digits only: `str::parse` would take a sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
