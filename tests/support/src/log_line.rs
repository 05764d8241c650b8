//! Lines of the access log and of the summary: `key=value`, a value that has spaces in quotes.

/// The value of `key=` in a line.
pub fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let (_, rest) =
        line.split_once(&format!(" {key}=")).unwrap_or_else(|| panic!("no {key} in {line}"));
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    }
}

/// The same, where it is a number.
pub fn number(line: &str, key: &str) -> u64 {
    let value = value(line, key);
    value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number in {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026 GET status=200 by=client request=\"GET /a b\" open=12";

    #[test]
    fn value_ends_at_a_space_or_at_its_quote() {
        assert_eq!(value(LINE, "by"), "client");
        assert_eq!(value(LINE, "request"), "GET /a b");
        assert_eq!(number(LINE, "open"), 12);
    }

    #[test]
    #[should_panic(expected = "no en in 2026")]
    fn key_is_a_whole_word() {
        value(LINE, "en");
    }
}
