//! The page at `/`: what happens, live, for people. Its parts lie in `page/` and are one answer, put together when this
//! is compiled; it asks the rest of this port for all that it shows.
//!
//! Its policy (Content-Security-Policy) has browsers run this script and use this style, known by their hashes, and
//! nothing else; let it ask this port and nobody else; and refuse to take text for HTML (Trusted Types).

use std::sync::LazyLock;

use data_encoding::BASE64;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

macro_rules! style {
    () => {
        include_str!("page/page.css")
    };
}

macro_rules! script {
    () => {
        concat!(
            include_str!("page/parts.js"),
            include_str!("page/charts.js"),
            include_str!("page/process.js"),
            include_str!("page/tunnels.js"),
            include_str!("page/detail.js"),
        )
    };
}

/// The page.
pub(super) const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    style!(),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n",
);

/// What browsers let it do.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(script!()),
        source(style!()),
    );
    // Words of ours, which a field can have. Without them the page would show nothing and do nothing.
    HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"))
});

/// A text between two tags, as a policy names it (CSP 3, section 2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(&Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between two tags, which are there once.
    fn between<'p>(from: &str, to: &str) -> &'p str {
        let parts: Vec<_> = PAGE.split(from).collect();
        let [_, rest] = parts.as_slice() else { panic!("{from} is there {} times", parts.len()) };
        let parts: Vec<_> = rest.split(to).collect();
        let [text, _] = parts.as_slice() else { panic!("{to} is there {} times", parts.len()) };
        text
    }

    #[test]
    fn policy_names_the_one_script_and_the_one_style_and_allows_nothing_unsafe() {
        let policy = POLICY.to_str().unwrap();
        for (name, text) in [
            ("script-src", between("<script>", "</script>")),
            ("style-src", between("<style>", "</style>")),
        ] {
            assert!(policy.contains(&format!("; {name} '{}'; ", source(text))), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        // RFC 6234's first example.
        assert_eq!(source("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }

    #[test]
    fn page_brings_everything_with_it_and_writes_no_html() {
        for outside in ["src=", "https://", "@import", "url(", " style=", " onclick="] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        for parses in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(parses), "{parses}");
        }
        // The name of SVG is the only address.
        assert_eq!(PAGE.matches("http://").count(), 1);
        assert!(PAGE.contains("\"http://www.w3.org/2000/svg\""));
    }

    #[test]
    fn no_part_of_the_page_is_over_500_lines() {
        for part in [
            style!(),
            include_str!("page/body.html"),
            include_str!("page/parts.js"),
            include_str!("page/charts.js"),
            include_str!("page/process.js"),
            include_str!("page/tunnels.js"),
            include_str!("page/detail.js"),
        ] {
            assert!(part.lines().count() <= 500);
        }
    }
}
