//! Values of labels: closed sets, so that no peer can make one. Pure.

use crate::words::words;

words! {
    /// The method of a request, as far as a metric tells it.
    pub(crate) enum Method {
        /// GET.
        Get = "GET",
        /// HEAD.
        Head = "HEAD",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// DELETE.
        Delete = "DELETE",
        /// PATCH.
        Patch = "PATCH",
        /// OPTIONS.
        Options = "OPTIONS",
        /// Any other, and none that could be read.
        Other = "other",
    }
}

impl Method {
    /// The method of a request line.
    pub(crate) fn of_line(line: &[u8]) -> Self {
        let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is_it = |method: &Self| method.as_str().as_bytes() == word && *method != Self::Other;
        Self::ALL.into_iter().find(is_it).unwrap_or(Self::Other)
    }
}

/// Status codes that have a label of their own: those of RFC 9110 and of RFC 6585.
const STATUSES: [u16; 45] = [
    100, 101, 200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402,
    403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 428,
    429, 431, 500, 501, 502, 503, 504,
];

/// The labels behind them: a class where the status is another one of it, and none.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The status of a request's answer, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(usize);

impl Status {
    pub(crate) const COUNT: usize = STATUSES.len() + CLASSES.len();

    /// The label of a status; `None` where no answer was given.
    pub(crate) fn of(status: Option<u16>) -> Self {
        let Some(status) = status else { return Self(Self::COUNT - 1) };
        let class = || STATUSES.len() + usize::from((status / 100).clamp(1, 5)) - 1;
        Self(STATUSES.binary_search(&status).unwrap_or_else(|_| class()))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    pub(crate) const fn index(self) -> usize {
        self.0
    }

    pub(crate) fn text(self) -> String {
        match STATUSES.get(self.0) {
            Some(status) => status.to_string(),
            None => CLASSES.get(self.0 - STATUSES.len()).copied().unwrap_or_default().to_owned(),
        }
    }
}

/// Close codes that have a label of their own: those of RFC 6455, section 7.4.1, and of IANA's registry, that a Close
/// may have, and 1005 for a Close without one.
const CLOSE_CODES: [u16; 13] =
    [1000, 1001, 1002, 1003, 1005, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];

/// The labels behind them: 3000 to 3999, 4000 to 4999, and all else.
const CODE_CLASSES: [&str; 3] = ["3xxx", "4xxx", "other"];

/// The code of a Close, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CloseCode(usize);

impl CloseCode {
    pub(crate) const COUNT: usize = CLOSE_CODES.len() + CODE_CLASSES.len();

    pub(crate) fn of(code: u16) -> Self {
        let class = |_| match code {
            3000..=3999 => CLOSE_CODES.len(),
            4000..=4999 => CLOSE_CODES.len() + 1,
            _ => CLOSE_CODES.len() + 2,
        };
        Self(CLOSE_CODES.binary_search(&code).unwrap_or_else(class))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    pub(crate) const fn index(self) -> usize {
        self.0
    }

    pub(crate) fn text(self) -> String {
        match CLOSE_CODES.get(self.0) {
            Some(code) => code.to_string(),
            None => {
                CODE_CLASSES.get(self.0 - CLOSE_CODES.len()).copied().unwrap_or_default().to_owned()
            }
        }
    }
}

words! {
    /// Why there was no connection to an address of the upstream.
    pub(crate) enum ConnectFailure {
        /// Its name has no address.
        Unresolved = "unresolved",
        /// It does not take the connection.
        Unreachable = "unreachable",
        /// It did not answer in time.
        Timeout = "timeout",
        /// None was tried, since the checks of all endpoints fail.
        Down = "down",
        /// No descriptor, port or memory was left.
        NoRoom = "no_room",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_status_has_one_label_and_there_are_no_more_than_that() {
        let labels: HashSet<_> = Status::all().map(Status::text).collect();
        assert_eq!(labels.len(), Status::COUNT);
        for status in 0..=u16::MAX {
            assert!(labels.contains(&Status::of(Some(status)).text()), "{status}");
        }
        for (status, label) in
            [(101, "101"), (404, "404"), (418, "4xx"), (599, "5xx"), (999, "5xx"), (7, "1xx")]
        {
            assert_eq!(Status::of(Some(status)).text(), label);
        }
        assert_eq!(Status::of(None).text(), "none");
    }

    #[test]
    fn each_close_code_has_one_label_and_applications_share_theirs() {
        let labels: HashSet<_> = CloseCode::all().map(CloseCode::text).collect();
        assert_eq!(labels.len(), CloseCode::COUNT);
        for code in 0..=u16::MAX {
            assert!(labels.contains(&CloseCode::of(code).text()), "{code}");
        }
        for (code, label) in [
            (1000, "1000"),
            (1005, "1005"),
            (1006, "other"),
            (3999, "3xxx"),
            (4000, "4xxx"),
            (4999, "4xxx"),
            (5000, "other"),
        ] {
            assert_eq!(CloseCode::of(code).text(), label);
        }
    }

    #[test]
    fn method_that_nobody_knows_is_other() {
        for (line, method) in [
            ("GET / HTTP/1.1", Method::Get),
            ("OPTIONS * HTTP/1.1", Method::Options),
            ("BREW /pot HTTP/1.1", Method::Other),
            ("get / HTTP/1.1", Method::Other),
            ("other / HTTP/1.1", Method::Other),
            ("", Method::Other),
        ] {
            assert_eq!(Method::of_line(line.as_bytes()), method, "{line}");
        }
    }
}
