//! What an order to close a tunnel says: the code and the reason of the Close. Pure.

use super::fault::Fault;
use super::query::parameters;
use crate::websocket::frame::{MAX_REASON, may_be_sent};

/// An order to close a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Close {
    /// Reads the query of such an order; `usual` is the code where it has none.
    pub(crate) fn read(query: &str, usual: u16) -> Result<Self, Fault> {
        let mut close = Self { code: usual, reason: String::new() };
        for (name, value) in parameters(query)? {
            let wrong = |rule: &str| Fault::parameter(&name, &value, rule);
            match name.as_str() {
                "code" => {
                    let code = value.parse().ok().filter(|code| may_be_sent(*code));
                    close.code = code.ok_or_else(|| {
                        wrong(
                            "must be a code that a Close may have (RFC 6455, section 7.4): 1000 to 1003, 1007 \
                             to 1014, or 3000 to 4999",
                        )
                    })?;
                }
                "reason" if value.len() > MAX_REASON => {
                    return Err(wrong("has room for 123 bytes (RFC 6455, section 5.5)"));
                }
                "reason" => close.reason.clone_from(&value),
                _ => return Err(wrong("no such parameter; there are code and reason")),
            }
        }
        Ok(close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_reason_are_those_of_the_query() {
        let close = |code, reason: &str| Ok(Close { code, reason: reason.to_owned() });
        assert_eq!(Close::read("", 1001), close(1001, ""));
        assert_eq!(Close::read("code=4000&reason=go+home%21", 1001), close(4000, "go home!"));
        assert_eq!(Close::read("code=1000", 1001), close(1000, ""));
        assert_eq!(
            Close::read(&format!("reason={}", "x".repeat(123)), 1),
            close(1, &"x".repeat(123))
        );
    }

    #[test]
    fn what_no_close_may_have_is_refused() {
        for query in [
            "code=1005",
            "code=1006",
            "code=1015",
            "code=999",
            "code=2000",
            "code=5000",
            "code=",
            "code=-1",
            "code=70000",
            "why=x",
            "code=4000&code=4001",
        ] {
            assert_eq!(Close::read(query, 1001).map_err(|fault| fault.status), Err(400), "{query}");
        }
        assert!(Close::read(&format!("reason={}", "é".repeat(62)), 1001).is_err());
    }
}
