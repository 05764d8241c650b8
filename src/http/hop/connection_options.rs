//! What `Connection` lists (RFC 9110, section 7.6.1), over field lines as they were read.
//!
//! A client may list tens of thousands of names in one head. A few are compared with each field; from then on names
//! are looked up among the sorted names of the fields, so that the cost grows with the bytes of the head and with
//! nothing that the client chooses.

use smallvec::SmallVec;

use super::{is_always_hop_by_hop, is_end_to_end, items};
use crate::http::head::Field;

/// So many names are compared with each field before the names of the fields are sorted.
const COMPARED: usize = 16;

/// What `Connection` lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// A bit for each field that is listed and may be removed, by its index.
    fields: SmallVec<[u64; 2]>,
}

impl ConnectionOptions {
    /// Of these field lines.
    pub(crate) fn of(fields: &[Field<'_>]) -> Self {
        Self::counted(fields).0
    }

    /// The same, and how many names were compared.
    fn counted(fields: &[Field<'_>]) -> (Self, usize) {
        let mut options = Self::default();
        let mut comparisons = 0;
        let mut compared = 0;
        let mut sorted = None;
        for item in fields.iter().filter(|field| field.is(b"connection")).flat_map(Field::items) {
            match item.len() {
                0 => {}
                5 if item.eq_ignore_ascii_case(b"close") => options.close = true,
                7 if item.eq_ignore_ascii_case(b"upgrade") => options.upgrade = true,
                10 if item.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                _ if compared < COMPARED => {
                    compared += 1;
                    comparisons += fields.len();
                    for (index, field) in fields.iter().enumerate() {
                        if field.name.eq_ignore_ascii_case(item) {
                            options.add(index, field);
                        }
                    }
                }
                _ => {
                    let sorted = sorted.get_or_insert_with(|| NamesInOrder::of(fields));
                    comparisons += sorted.take(item, |index, field| options.add(index, field));
                }
            }
        }
        (options, comparisons)
    }

    fn add(&mut self, index: usize, field: &Field<'_>) {
        if is_end_to_end(field.name) {
            return;
        }
        let (word, bit) = (index / 64, index % 64);
        if self.fields.len() <= word {
            self.fields.resize(word + 1, 0);
        }
        if let Some(word) = self.fields.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    /// Whether the sender closes the connection behind this message, or wants it closed.
    pub(crate) const fn close(&self) -> bool {
        self.close
    }

    /// Whether an HTTP/1.0 sender keeps the connection (RFC 9112, section 9.3).
    pub(crate) const fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether what `Upgrade` says is said to us (RFC 9110, section 7.8).
    pub(crate) const fn upgrade(&self) -> bool {
        self.upgrade
    }

    /// Whether a field, which is at `index` of those that this was made of, speaks of this connection alone.
    pub(crate) fn is_hop_by_hop(&self, index: usize, field: &Field<'_>) -> bool {
        is_always_hop_by_hop(field)
            // `Close` is no field of any standard; it is removed as each field that is listed.
            || self.close && field.is(b"close")
            || self.fields.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// Whether the sender takes trailers: `TE: trailers` (RFC 9110, section 10.1.4).
pub(crate) fn wants_trailers(fields: &[Field<'_>]) -> bool {
    let te = fields.iter().filter(|field| field.is(b"te"));
    te.flat_map(Field::items).any(|item| item.eq_ignore_ascii_case(b"trailers"))
}

impl<'a> Field<'a> {
    /// The items of the list that its value is.
    fn items(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        items(self.value)
    }
}

/// The names of the fields in order, to find those of a name without looking at all.
struct NamesInOrder<'f, 'a> {
    names: Vec<Name<'f, 'a>>,
}

/// A field by its name.
struct Name<'f, 'a> {
    /// The first bytes of its name, which mostly tell it from the others.
    start: u64,
    index: usize,
    field: &'f Field<'a>,
    /// Whether it was found.
    found: bool,
}

impl<'f, 'a> NamesInOrder<'f, 'a> {
    fn of(fields: &'f [Field<'a>]) -> Self {
        let name_of = |(index, field): (usize, &'f Field<'a>)| Name {
            start: start_of(field.name),
            index,
            field,
            found: false,
        };
        let mut names: Vec<_> = fields.iter().enumerate().map(name_of).collect();
        names.sort_unstable_by(|one, other| {
            one.start.cmp(&other.start).then_with(|| folded(one.field.name, other.field.name))
        });
        Self { names }
    }

    /// Gives `add` the fields of this name, the first time that it is asked for: how many names were compared.
    fn take(&mut self, name: &[u8], mut add: impl FnMut(usize, &Field<'_>)) -> usize {
        let start = start_of(name);
        let mut comparisons = 0;
        let first = self.names.partition_point(|other| {
            comparisons += 1;
            other.start < start || other.start == start && folded(other.field.name, name).is_lt()
        });
        for other in self.names.get_mut(first..).unwrap_or_default() {
            comparisons += 1;
            if other.found || !other.field.name.eq_ignore_ascii_case(name) {
                break;
            }
            other.found = true;
            add(other.index, other.field);
        }
        comparisons
    }
}

/// The first eight bytes of a name in lower case, so that numbers are in the order of names.
fn start_of(name: &[u8]) -> u64 {
    let mut start = [0; 8];
    for (to, from) in start.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    u64::from_be_bytes(start)
}

/// The order of two names in lower case.
fn folded(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    one.iter().map(u8::to_ascii_lowercase).cmp(other.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(lines: &'a [(&'a str, &'a [u8])]) -> Vec<Field<'a>> {
        lines.iter().map(|(name, value)| Field { name: name.as_bytes(), value }).collect()
    }

    /// The names of the fields that pass.
    fn passing<'a>(lines: &'a [(&'a str, &'a [u8])]) -> Vec<&'a str> {
        let fields = fields(lines);
        let listed = ConnectionOptions::of(&fields);
        let passes = |(index, _): &(usize, &(&str, &[u8]))| {
            !fields.get(*index).is_some_and(|field| listed.is_hop_by_hop(*index, field))
        };
        lines.iter().enumerate().filter(passes).map(|(_, (name, _))| *name).collect()
    }

    #[test]
    fn fields_that_connection_lists_do_not_pass() {
        let lines: [(&str, &[u8]); 11] = [
            ("Connection", b"close, X-Secret , te,, \xff"),
            ("x-secret", b"1"),
            ("X-SECRET", b"2"),
            ("X-Secrets", b"3"),
            ("Keep-Alive", b"timeout=5"),
            ("Proxy-Connection", b"keep-alive"),
            ("TE", b"trailers, deflate"),
            ("connection", b"\xff,other"),
            ("Upgrade", b"websocket"),
            ("Other", b"4"),
            ("Accept", b"*/*"),
        ];
        assert_eq!(passing(&lines), ["X-Secrets", "Accept"]);
    }

    #[test]
    fn a_field_called_close_passes_unless_it_is_listed() {
        assert_eq!(
            passing(&[("Connection", b"a, close"), ("CLOSE", b"3"), ("Closed", b"4")]),
            ["Closed"]
        );
        assert_eq!(passing(&[("Connection", b"closed"), ("Close", b"3")]), ["Close"]);
    }

    #[test]
    fn end_to_end_fields_pass_even_if_they_are_listed() {
        let lines: [(&str, &[u8]); 5] = [
            ("Connection", b"host, content-length, x-forwarded-for, sec-websocket-key"),
            ("Host", b"a"),
            ("Content-Length", b"5"),
            ("X-Forwarded-For", b"1.1.1.1"),
            ("Sec-WebSocket-Key", b"x"),
        ];
        assert_eq!(passing(&lines), lines.map(|(name, _)| name)[1..]);
    }

    #[test]
    fn words_of_a_connection_are_found_in_any_line_and_case() {
        let lines: [(&str, &[u8]); 3] = [
            ("Connection", b"x"),
            ("connection", b" Close\t"),
            ("CONNECTION", b"UPGRADE,Keep-Alive"),
        ];
        let options = ConnectionOptions::of(&fields(&lines));
        assert!(options.close() && options.upgrade() && options.keep_alive());
        let options =
            ConnectionOptions::of(&fields(&[("Connection", b"closed, upgrades, keep-alives")]));
        assert!(!options.close() && !options.upgrade() && !options.keep_alive());
        assert!(!ConnectionOptions::of(&fields(&[("Close", b"close")])).close());
    }

    #[test]
    fn trailers_are_wanted_where_te_says_so() {
        assert!(wants_trailers(&fields(&[("te", b"\xff, Trailers")])));
        assert!(wants_trailers(&fields(&[("TE", b"gzip"), ("TE", b"trailers")])));
        assert!(!wants_trailers(&fields(&[("TE", b"trailers;q=1"), ("T", b"trailers")])));
    }

    /// Many names are found by another way than few: it must find the same.
    #[test]
    fn each_of_many_names_is_found_as_one_of_few() {
        let names: Vec<String> = (0..300_u32)
            .map(|number| match number % 4 {
                0 => format!("{number}"),
                1 => format!("X-Field-{number}"),
                2 => format!("x-a-long-name-that-begins-as-others-do-{}", number / 3),
                _ => format!("X-A-Long-Name-That-Begins-As-Others-Do-{}", number / 3),
            })
            .collect();
        let listed: Vec<_> =
            names.iter().step_by(3).rev().map(|name| name.to_lowercase()).collect();
        let list = listed.join(" ,");
        let mut lines: Vec<(&str, &[u8])> =
            names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
        lines.push(("Connection", list.as_bytes()));
        let passes: Vec<_> = names
            .iter()
            .map(String::as_str)
            .filter(|name| !listed.contains(&name.to_lowercase()))
            .collect();
        assert!(passes.len() > 100 && passes.len() < 250, "{}", passes.len());
        assert_eq!(passing(&lines), passes);
    }

    /// With each name compared with each field it would be a hundred for each name.
    #[test]
    fn names_without_number_cost_little() {
        let names = |start: &str| -> Vec<_> {
            (b'!'..=b'~').map(|letter| format!("{start}{}", char::from(letter))).collect()
        };
        for (names, listed, number) in [
            (names(""), "x,", 30_000),
            (names(""), "\u{7f},", 20_000),
            (names("a"), "az,", 21_000),
            (names("a-long-name-"), "a-long-name-\u{7f},", 4_400),
            (names("a-long-name-"), "A-long-name-a,", 4_400),
            (vec!["X".to_owned(); 99], "x,", 30_000),
            (vec!["Sec-WebSocket-Key".to_owned(); 99], "sec-websocket-key,", 3_500),
        ] {
            let list = listed.repeat(number);
            let mut lines: Vec<(&str, &[u8])> =
                names.iter().map(|name| (name.as_str(), &b"1"[..])).collect();
            lines.push(("Connection", list.as_bytes()));
            let (_, comparisons) = ConnectionOptions::counted(&fields(&lines));
            assert!(comparisons > number, "{listed}: {comparisons}");
            assert!(comparisons < 10 * number, "{listed}: {comparisons}");
        }
    }
}
