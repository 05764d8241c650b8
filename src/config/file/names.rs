//! Names in a file, and what somebody may have meant who wrote another one. Pure.

/// The longest name of a route or a group.
const LONGEST: usize = 64;

pub(super) fn is_name(text: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_of_name)
}

/// `, did you mean this?`, where one of those that are known is not far from it.
pub(super) fn meant<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|known| (distance(text, known), known));
    match near.min() {
        Some((1..=2, known)) => format!(", did you mean {known}?"),
        _ => String::new(),
    }
}

/// How many letters are to be put in, taken out or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    // Far longer ones are far away, and nobody has to wait for how far.
    if one.len().abs_diff(other.len()) > 2 || one.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in (1..).zip(one.bytes()) {
        let mut corner = above - 1;
        let mut left = above;
        for (cell, known) in row.iter_mut().skip(1).zip(other.bytes()) {
            let changed = corner + usize::from(letter != known);
            corner = *cell;
            left = changed.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_named() {
        let known = ["ping_interval", "path_prefix", "path"];
        assert_eq!(meant("ping_intervall", known), ", did you mean ping_interval?");
        assert_eq!(meant("pat", known), ", did you mean path?");
        assert_eq!(meant("pathprefix", known), ", did you mean path_prefix?");
        assert_eq!(meant("colour", known), "");
        assert_eq!(distance("kitten", "sittin"), 2);
        assert_eq!(distance("", "ab"), 2);
    }

    #[test]
    fn names_have_no_signs_that_a_log_would_have_to_escape() {
        assert!(is_name("chat-v2.eu_1"));
        for bad in ["", "a b", "a\"", "ä", "a/b", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
