//! The form of an access log line, text and JSON. Pure.
//!
//! The keys and the words behind `by`, `during` and `why` are a promise to whoever parses them;
//! `docs/operations.md` lists them.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::end::{End, Side};

/// What a line says.
pub(super) struct Line<'a> {
    /// When it is written, as text.
    pub(super) time: &'a dyn fmt::Display,
    pub(super) client: SocketAddr,
    pub(super) balancer: SocketAddr,
    /// Method, target, version, as they came.
    pub(super) request: &'a str,
    /// `None` where no answer was given.
    pub(super) status: Option<u16>,
    /// Body or tunnel bytes.
    pub(super) from_client: u64,
    /// Body or tunnel bytes.
    pub(super) from_upstream: u64,
    pub(super) duration: Duration,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) end: End,
    pub(super) request_id: &'a str,
    /// Of a WebSocket tunnel.
    pub(super) spoken: Option<Spoken>,
    /// Of a tunnel: how often it was handed to another process.
    pub(super) handoffs: Option<u16>,
}

/// What the frames of a tunnel tell.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) messages_from_client: u64,
    pub(super) messages_from_upstream: u64,
    pub(super) payload_from_client: u64,
    pub(super) payload_from_upstream: u64,
    /// Code and sender of the first Close.
    pub(super) close: Option<(u16, Side)>,
    /// Last and worst round trip of our pings to the client.
    pub(super) ping: Option<(Duration, Duration)>,
}

impl Line<'_> {
    pub(super) fn text(&self) -> String {
        let mut out = String::with_capacity(256);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "{} client={} balancer={} request=\"{}\" status={} from_client={} from_upstream={} \
             duration={:.3} upstream={} {} request_id={}",
            self.time,
            self.client,
            self.balancer,
            Escaped(self.request),
            OrDash(self.status),
            self.from_client,
            self.from_upstream,
            self.duration.as_secs_f64(),
            OrDash(self.upstream),
            self.end,
            Escaped(self.request_id),
        );
        if let Some(spoken) = &self.spoken {
            let seconds = |time: Duration| format!("{:.6}", time.as_secs_f64());
            let _ = write!(
                out,
                " messages_from_client={} messages_from_upstream={} payload_from_client={} \
                 payload_from_upstream={} close_code={} close_by={} ping_rtt={} ping_rtt_worst={}",
                spoken.messages_from_client,
                spoken.messages_from_upstream,
                spoken.payload_from_client,
                spoken.payload_from_upstream,
                OrDash(spoken.close.map(|(code, _)| code)),
                OrDash(spoken.close.map(|(_, side)| side.as_str())),
                OrDash(spoken.ping.map(|(last, _)| seconds(last))),
                OrDash(spoken.ping.map(|(_, worst)| seconds(worst))),
            );
        }
        if let Some(handoffs) = self.handoffs {
            let _ = write!(out, " handoffs={handoffs}");
        }
        out.push('\n');
        out
    }

    pub(super) fn json(&self) -> String {
        let mut object = Object::default();
        object.value("time", Quoted(self.time));
        object.value("client", Quoted(self.client));
        object.value("balancer", Quoted(self.balancer));
        object.value("request", Quoted(Escaped(self.request)));
        object.value("status", OrNull(self.status));
        object.value("from_client", self.from_client);
        object.value("from_upstream", self.from_upstream);
        object.value("duration", Seconds(self.duration));
        object.value("upstream", OrNull(self.upstream.map(Quoted)));
        object.value("by", Quoted(self.end.by.as_str()));
        object.value("during", Quoted(self.end.during.as_str()));
        object.value("why", Quoted(self.end.why.as_str()));
        object.value("request_id", Quoted(Escaped(self.request_id)));
        if let Some(spoken) = &self.spoken {
            object.value("messages_from_client", spoken.messages_from_client);
            object.value("messages_from_upstream", spoken.messages_from_upstream);
            object.value("payload_from_client", spoken.payload_from_client);
            object.value("payload_from_upstream", spoken.payload_from_upstream);
            object.value("close_code", OrNull(spoken.close.map(|(code, _)| code)));
            object.value("close_by", OrNull(spoken.close.map(|(_, side)| Quoted(side.as_str()))));
            object.value("ping_rtt", OrNull(spoken.ping.map(|(last, _)| Seconds(last))));
            object.value("ping_rtt_worst", OrNull(spoken.ping.map(|(_, worst)| Seconds(worst))));
        }
        if let Some(handoffs) = self.handoffs {
            object.value("handoffs", handoffs);
        }
        object.end()
    }
}

/// A JSON object, on one line. Its keys are names of ours, which need no escapes. Lines are formed by
/// workers, for each request: nothing is kept on the way to the text.
struct Object(String);

impl Default for Object {
    fn default() -> Self {
        let mut out = String::with_capacity(512);
        out.push('{');
        Self(out)
    }
}

impl Object {
    /// A key with a value that is written as JSON has it.
    fn value(&mut self, key: &str, value: impl fmt::Display) {
        let separator = if self.0.len() > 1 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{separator}\"{key}\":{value}");
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

/// A value in quotes, whose text has its escapes, or needs none.
struct Quoted<T>(T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{}\"", self.0)
    }
}

/// A time in seconds, to the microsecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.6}", self.0.as_secs_f64())
    }
}

/// The value, or `null`.
struct OrNull<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(out),
            None => out.write_str("null"),
        }
    }
}

/// Puts `?...` in the place of a request line's query. Browsers cannot give a WebSocket a field of its own, so
/// that tokens are put there.
pub(super) fn hide_query(request: &mut String) {
    let Some(start) = request.find('?') else { return };
    let rest = request.get(start..).unwrap_or_default();
    let end = rest.rfind(' ').map_or(request.len(), |space| start + space);
    request.replace_range(start..end, "?...");
}

/// Cuts a request line that is longer than `longest` bytes; `...` at its end tells. It keeps no more
/// memory than that.
pub(super) fn cut(request: &mut String, longest: usize) {
    if request.len() > longest {
        let mut end = longest.saturating_sub(CUT.len());
        while !request.is_char_boundary(end) {
            end -= 1;
        }
        request.truncate(end);
        request.push_str(CUT);
    }
    if request.capacity() > longest {
        request.shrink_to_fit();
    }
}

/// What stands for the rest of a line that was cut.
const CUT: &str = "...";

/// Characters that a terminal or a reader of lines acts on instead of showing them: control
/// characters, line and paragraph separators, and those that turn the direction of text.
fn is_acted_on(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends `char` so that it is seen and does nothing.
fn push(out: &mut impl Write, char: char) {
    // Writing to a string cannot fail.
    let _ = if is_acted_on(char) {
        write!(out, "\\u{:04x}", u32::from(char))
    } else {
        out.write_char(char)
    };
}

/// Text that a client chose, inside quotes: one line, no quote, no control character. JSON has the same escapes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(out, "\\{char}")?,
                _ => push(out, char),
            }
        }
        Ok(())
    }
}

/// The value, or `-`.
struct OrDash<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(out),
            None => out.write_char('-'),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::end::{Phase, Reason};

    fn line() -> Line<'static> {
        Line {
            time: &"1970-01-01T00:00:00.000Z",
            client: "203.0.113.7:51234".parse().unwrap(),
            balancer: "[2001:db8::5]:3321".parse().unwrap(),
            request: "GET /a\"b\\c\n HTTP/1.1",
            status: None,
            from_client: 1,
            from_upstream: 2,
            duration: Duration::from_micros(1_500_250),
            upstream: None,
            end: End::new(Side::Client, Phase::Request, Reason::Closed),
            request_id: "id",
            spoken: None,
            handoffs: None,
        }
    }

    #[test]
    fn text_is_one_line_whatever_the_client_sent() {
        let text = line().text();
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert_eq!(
            rest,
            "client=203.0.113.7:51234 balancer=[2001:db8::5]:3321 \
             request=\"GET /a\\\"b\\\\c\\u000a HTTP/1.1\" status=- from_client=1 from_upstream=2 \
             duration=1.500 upstream=- by=client during=request why=closed request_id=id\n"
        );
    }

    fn tunnel_line() -> Line<'static> {
        let spoken = Spoken {
            messages_from_client: 3,
            messages_from_upstream: 4,
            payload_from_client: 50,
            payload_from_upstream: 60,
            close: Some((1001, Side::Elbows)),
            ping: Some((Duration::from_micros(312), Duration::from_millis(1500))),
        };
        Line { spoken: Some(spoken), handoffs: Some(2), ..line() }
    }

    #[test]
    fn a_websocket_says_more() {
        let text = tunnel_line().text();
        let (_, more) = text.split_once(" request_id=id ").unwrap();
        assert_eq!(
            more,
            "messages_from_client=3 messages_from_upstream=4 payload_from_client=50 \
             payload_from_upstream=60 close_code=1001 close_by=elbows ping_rtt=0.000312 \
             ping_rtt_worst=1.500000 handoffs=2\n"
        );
        let value: serde_json::Value = serde_json::from_str(&tunnel_line().json()).unwrap();
        assert_eq!(value["messages_from_upstream"], 4);
        assert_eq!(value["close_by"], "elbows");
        assert_eq!(value["ping_rtt"], 0.000_312);
        assert_eq!(value["handoffs"], 2);
        let mut line = tunnel_line();
        let spoken = line.spoken.as_mut().unwrap();
        (spoken.close, spoken.ping) = (None, None);
        assert!(
            line.text()
                .ends_with("close_code=- close_by=- ping_rtt=- ping_rtt_worst=- handoffs=2\n")
        );
        let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(value["close_code"], serde_json::Value::Null);
    }

    /// A tunnel of another protocol has no frames, and moves all the same.
    #[test]
    fn each_tunnel_says_how_often_it_moved() {
        let line = Line { handoffs: Some(0), ..line() };
        assert!(line.text().ends_with(" request_id=id handoffs=0\n"));
        let value: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(value["handoffs"], 0);
        assert_eq!(value["messages_from_client"], serde_json::Value::Null);
    }

    #[test]
    fn query_is_hidden_and_nothing_else() {
        for (request, hidden) in [
            ("GET /ws?token=s3cret HTTP/1.1", "GET /ws?... HTTP/1.1"),
            ("GET /ws?a=b&c=d?e HTTP/1.1", "GET /ws?... HTTP/1.1"),
            ("GET /ws? HTTP/1.1", "GET /ws?... HTTP/1.1"),
            ("GET /ws?a b c HTTP/1.1", "GET /ws?... HTTP/1.1"),
            ("GET /ws?s3cret", "GET /ws?..."),
            ("GET /ws HTTP/1.1", "GET /ws HTTP/1.1"),
            ("?", "?..."),
            ("", ""),
        ] {
            let mut request = request.to_owned();
            hide_query(&mut request);
            assert_eq!(request, hidden);
        }
    }

    #[test]
    fn long_line_is_cut_between_characters_and_shows_it() {
        for (request, shown) in [
            ("GET /abcd HTTP/1.1", "GET /ab..."),
            ("GET /abcde", "GET /abcde"),
            ("GET /abcdef", "GET /ab..."),
            ("GET /a\u{e9}\u{e9}\u{e9}", "GET /a..."),
            ("", ""),
        ] {
            let mut request = request.to_owned();
            request.reserve(1_000);
            cut(&mut request, 10);
            assert_eq!(request, shown);
            assert!(request.capacity() <= 10, "{}", request.capacity());
        }
    }

    #[test]
    fn json_reads_as_what_the_client_sent() {
        let all: String = ('\0'..='\u{3000}').collect();
        for request in ["", "\"", "\\", "\\\"\u{1f600}", &all] {
            let text = Line { request, ..line() }.json();
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["request"], request);
            assert!(!text.trim_end_matches('\n').contains(is_acted_on), "{text}");
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = line().json();
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["request"], "GET /a\"b\\c\n HTTP/1.1");
        assert_eq!(value["status"], serde_json::Value::Null);
        assert_eq!(value["duration"], 1.50025);
        assert_eq!(value["why"], "closed");
    }
}
