//! An order to close a tunnel. Pure.

use form_urlencoded::Serializer;

/// The longest reason of a Close, in bytes (RFC 6455, section 5.5).
pub(crate) const LONGEST_REASON: usize = 123;

/// Which tunnel is to be closed, and what its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: String,
    /// Anything else ends without a Close.
    pub(crate) is_websocket: bool,
    /// Without one it is what `DRAIN_CLOSE_CODE` says there.
    pub(crate) code: Option<u16>,
    pub(crate) reason: String,
}

impl Close {
    /// What it is ordered by.
    pub(crate) fn target(&self) -> String {
        let mut query = Serializer::new(String::new());
        if let Some(code) = self.code {
            query.append_pair("code", &code.to_string());
        }
        if !self.reason.is_empty() {
            query.append_pair("reason", &self.reason);
        }
        format!("/api/tunnels/{}/close?{}", self.id, query.finish())
    }
}

/// Reads what a Close may have as its code (RFC 6455, section 7.4); of nothing, none.
pub(crate) fn code(line: &str) -> Result<Option<u16>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    match line.parse() {
        Ok(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => Ok(Some(code)),
        _ => Err(format!("{line:?}: a Close may have 1000 to 1003, 1007 to 1014, or 3000 to 4999")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_has_what_was_typed_and_nothing_breaks_out_of_it() {
        let target = |code, reason: &str| {
            Close {
                id: "0-1-ab".to_owned(),
                name: String::new(),
                is_websocket: true,
                code,
                reason: reason.to_owned(),
            }
            .target()
        };
        assert_eq!(target(None, ""), "/api/tunnels/0-1-ab/close?");
        assert_eq!(
            target(Some(4000), "go home & \u{fc}#"),
            "/api/tunnels/0-1-ab/close?code=4000&reason=go+home+%26+%C3%BC%23"
        );
    }

    #[test]
    fn code_is_one_that_a_close_may_have() {
        assert_eq!((code(" "), code(" 4000 ")), (Ok(None), Ok(Some(4000))));
        for line in ["1005", "1006", "1015", "2999", "5000", "x", "-1", "70000"] {
            assert!(code(line).is_err(), "{line}");
        }
    }
}
