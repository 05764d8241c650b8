//! Which tunnels are asked for, and in which order: as flags, as a line that somebody types, and as a query. Pure.
//!
//! elbows reads the values and says what is wrong with them; here only their names are known.

use form_urlencoded::Serializer;

/// What tunnels can be sorted by.
pub(crate) const ORDERS: [&str; 18] = [
    "id",
    "client",
    "upstream",
    "path",
    "subprotocol",
    "state",
    "age",
    "idle",
    "messages",
    "messages_from_client",
    "messages_from_upstream",
    "bytes",
    "from_client",
    "from_upstream",
    "waiting",
    "waiting_for_client",
    "waiting_for_upstream",
    "ping_rtt",
];

/// From this place on they are quantities.
const QUANTITIES: usize = 6;

/// The names of filters, in the order of [`Filters`]' values.
const NAMES: [&str; 7] = ["client", "upstream", "path", "search", "older", "idle", "state"];

/// Where `path` stands: a word without a name is one.
const PATH: usize = 2;

/// Which tunnels are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters([Option<String>; NAMES.len()]);

/// In which order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// A place in [`ORDERS`].
    by: usize,
    /// The greatest comes first.
    pub(crate) is_descending: bool,
}

/// What is asked of an elbows at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) filters: Filters,
    pub(crate) order: Order,
    pub(crate) limit: u16,
    /// The tunnel to be told of by itself.
    pub(crate) one: Option<String>,
}

impl Filters {
    pub(crate) const fn new(values: [Option<String>; NAMES.len()]) -> Self {
        Self(values)
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = self.0.iter().map(Option::as_deref);
        NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Reads what was typed: `state=open search="Firefox 140" /chat`. A word that is no filter is looked for in paths.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        let mut read = Self::default();
        for word in words(line) {
            let named = word.split_once('=').and_then(|(name, value)| {
                let at = NAMES.into_iter().position(|known| known == name)?;
                Some((at, value))
            });
            let (at, value) = named.unwrap_or((PATH, &*word));
            let (Some(name), Some(place)) = (NAMES.get(at), read.0.get_mut(at)) else { continue };
            if place.is_some() {
                return Err(format!("{name} is given twice: {word}"));
            }
            *place = Some(value.to_owned());
        }
        Ok(read)
    }

    /// What [`Filters::read`] reads.
    pub(crate) fn line(&self) -> String {
        self.all()
            .map(|(name, value)| format!("{name}={}", quoted(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The words of a line: between double quotes white space is a part of one, and `\` stands before a quote or itself.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().extend(chars.next()),
            char if char.is_whitespace() && !is_quoted => words.extend(word.take()),
            char => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// A value as [`words`] reads it as a part of one word.
fn quoted(value: &str) -> String {
    if !value.contains(|char: char| char.is_whitespace() || char == '"') {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for char in value.chars() {
        if matches!(char, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

impl Order {
    /// Reads a name of [`ORDERS`], behind `-` where the greatest comes first.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (name, is_descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let by = ORDERS.into_iter().position(|known| known == name);
        by.map(|by| Self { by, is_descending })
            .ok_or_else(|| format!("must be one of {}, perhaps behind a '-'", ORDERS.join(", ")))
    }

    pub(crate) fn name(self) -> &'static str {
        ORDERS.get(self.by).copied().unwrap_or_default()
    }

    pub(crate) fn reversed(self) -> Self {
        Self { is_descending: !self.is_descending, ..self }
    }

    /// By what comes so many names later. What is a quantity comes with its greatest first.
    pub(crate) fn moved(self, by: usize) -> Self {
        let by = (self.by + by) % ORDERS.len();
        Self { by, is_descending: by >= QUANTITIES }
    }

    /// What [`Order::read`] reads.
    pub(crate) fn text(self) -> String {
        format!("{}{}", if self.is_descending { "-" } else { "" }, self.name())
    }
}

impl Question {
    /// The target that tells of the tunnels.
    pub(crate) fn target(&self) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.filters.all());
        // Without an order no more tunnels are looked at than are told.
        if self.order != Order::default() {
            query.append_pair("sort", &self.order.text());
        }
        query.append_pair("limit", &self.limit.to_string());
        format!("/api/tunnels?{}", query.finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn target(line: &str, order: &str) -> String {
        let filters = Filters::read(line).unwrap();
        assert_eq!(Filters::read(&filters.line()), Ok(filters.clone()), "{line}");
        Question { filters, order: Order::read(order).unwrap(), limit: 100, one: None }.target()
    }

    #[test]
    fn line_becomes_a_query_in_which_nothing_breaks_out() {
        assert_eq!(target("", "id"), "/api/tunnels?limit=100");
        assert_eq!(
            target("  idle=1m  /chat state=open ", "-age"),
            "/api/tunnels?path=%2Fchat&idle=1m&state=open&sort=-age&limit=100"
        );
        assert_eq!(
            target("client=10.0.0.0/8 x&limit=9#ü=\u{1b}", "client"),
            "/api/tunnels?client=10.0.0.0%2F8&path=x%26limit%3D9%23%C3%BC%3D%1B&sort=client&limit=100"
        );
        assert_eq!(Filters::read("a b"), Err("path is given twice: b".to_owned()));
        assert!(Filters::read("state=open state=closing").is_err());
        assert!(Filters::read(" ").unwrap().is_empty());
        // What has spaces is in quotes.
        assert_eq!(
            target("search=\"a b\" \"/two words\"", "id"),
            "/api/tunnels?path=%2Ftwo+words&search=a+b&limit=100"
        );
        let six = || [const { None }; 6];
        for value in ["", "a b", " ", "\"", "\\", "a\\\"b c\\", "\\n", "ü\t\u{3000}"] {
            let [one, two, three, older, idle, state] = six();
            let filters =
                Filters::new([one, two, three, Some(value.to_owned()), older, idle, state]);
            assert_eq!(Filters::read(&filters.line()), Ok(filters.clone()), "{value:?}");
        }
    }

    #[test]
    fn orders_are_those_of_the_admin_port() {
        for name in ORDERS {
            assert_eq!(Order::read(name).unwrap().text(), name);
            assert_eq!(Order::read(&format!("-{name}")).unwrap().reversed().text(), name);
        }
        assert!(Order::read("colour").unwrap_err().contains("ping_rtt"));
        let order = Order::read("path").unwrap();
        assert_eq!(
            (order.moved(3).text(), order.moved(17).text()),
            ("-age".into(), "upstream".into())
        );
        // What is a name comes from its beginning, what is a quantity from its greatest.
        assert_eq!(
            (order.moved(16).text(), order.moved(18).text()),
            ("client".into(), "path".into())
        );
    }
}
