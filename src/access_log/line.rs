//! The form of an access log line, text and JSON. Pure.
//!
//! The keys and the words behind `by`, `during` and `why` are a promise to whoever parses them;
//! `docs/operations.md` lists them.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::end::{End, Side};
use crate::http::trace_context::TraceId;
use crate::tunnel::Handshake;

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
    /// Of a tunnel.
    pub(super) handshake: Option<Handshake<'a>>,
    pub(super) trace_id: Option<TraceId>,
    /// The name of its route, where it is not the default one.
    pub(super) route: Option<&'a str>,
}

/// What the line of a tunnel that opens says.
pub(super) struct Opening<'a> {
    /// When it is written, as text.
    pub(super) time: &'a dyn fmt::Display,
    pub(super) client: SocketAddr,
    pub(super) balancer: SocketAddr,
    pub(super) request: &'a str,
    /// Of the handshake.
    pub(super) duration: Duration,
    pub(super) upstream: SocketAddr,
    pub(super) request_id: &'a str,
    pub(super) handshake: Handshake<'a>,
    /// The name of its route, where it is not the default one.
    pub(super) route: Option<&'a str>,
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
        if let Some(handshake) = &self.handshake {
            write_handshake(&mut out, handshake);
        }
        write_trace_id(&mut out, self.trace_id);
        write_route(&mut out, self.route);
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
        if let Some(handshake) = &self.handshake {
            object.handshake(handshake);
        }
        object.trace_id(self.trace_id);
        object.route(self.route);
        object.end()
    }
}

/// A key of its own tells it from the line of a tunnel that has ended: it comes first.
impl Opening<'_> {
    pub(super) fn text(&self) -> String {
        let mut out = String::with_capacity(256);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "{} event=open client={} balancer={} request=\"{}\" status=101 duration={:.3} upstream={} \
             request_id={}",
            self.time,
            self.client,
            self.balancer,
            Escaped(self.request),
            self.duration.as_secs_f64(),
            self.upstream,
            Escaped(self.request_id),
        );
        write_handshake(&mut out, &self.handshake);
        write_trace_id(&mut out, self.handshake.trace_id);
        write_route(&mut out, self.route);
        out.push('\n');
        out
    }

    pub(super) fn json(&self) -> String {
        let mut object = Object::default();
        object.value("time", Quoted(self.time));
        object.value("event", Quoted("open"));
        object.value("client", Quoted(self.client));
        object.value("balancer", Quoted(self.balancer));
        object.value("request", Quoted(Escaped(self.request)));
        object.value("status", 101);
        object.value("duration", Seconds(self.duration));
        object.value("upstream", Quoted(self.upstream));
        object.value("request_id", Quoted(Escaped(self.request_id)));
        object.handshake(&self.handshake);
        object.trace_id(self.handshake.trace_id);
        object.route(self.route);
        object.end()
    }
}

/// What a handshake said, each in quotes, or `-` where it said nothing.
fn write_handshake(out: &mut String, handshake: &Handshake<'_>) {
    for (key, text) in texts(handshake) {
        // Writing to a string cannot fail.
        let _ = write!(out, " {key}={}", OrDash(text.map(Quoted)));
    }
}

fn write_trace_id(out: &mut String, trace_id: Option<TraceId>) {
    if let Some(trace_id) = trace_id {
        // Writing to a string cannot fail.
        let _ = write!(out, " trace_id={trace_id}");
    }
}

fn write_route(out: &mut String, route: Option<&str>) {
    if let Some(route) = route {
        // Writing to a string cannot fail.
        let _ = write!(out, " route={}", Escaped(route));
    }
}

/// The keys of what a handshake said, and what that was.
fn texts<'a>(handshake: &Handshake<'a>) -> [(&'static str, Option<Escaped<'a>>); 3] {
    let Handshake { host, user_agent, subprotocol, trace_id: _ } = *handshake;
    [("host", host), ("user_agent", user_agent), ("subprotocol", subprotocol)]
        .map(|(key, text)| (key, (!text.is_empty()).then_some(Escaped(text))))
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

    fn handshake(&mut self, handshake: &Handshake<'_>) {
        for (key, text) in texts(handshake) {
            self.value(key, OrNull(text.map(Quoted)));
        }
    }

    /// Only where there is one.
    fn trace_id(&mut self, trace_id: Option<TraceId>) {
        if let Some(trace_id) = trace_id {
            self.value("trace_id", Quoted(trace_id));
        }
    }

    /// Only where it is not the default one.
    fn route(&mut self, route: Option<&str>) {
        if let Some(route) = route {
            self.value("route", Quoted(Escaped(route)));
        }
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

/// Cuts a text that is longer than `longest` bytes; `...` at its end tells. It keeps no more
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

/// JSON in which such characters are escaped, too: in texts, for elsewhere it has none.
pub(crate) fn escaped(json: String) -> String {
    if !json.contains(is_acted_on) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    json.chars().for_each(|char| push(&mut out, char));
    out
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
