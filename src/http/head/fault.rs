//! The rules of RFC 9112 that a message can break, by name.

/// A rule that was broken. The words are those of logs, counters and `docs/security.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Section 3.1: the method is a token.
    #[error("malformed method")]
    Method,
    /// Section 3: three parts, one space between each, a version behind them.
    #[error("malformed request line")]
    RequestLine,
    /// Section 3.2: origin form, absolute form of an http URI, or `*` with OPTIONS.
    #[error("malformed request target")]
    Target,
    /// Longer than [`Limits::target`](super::Limits::target).
    #[error("request target too long")]
    LongTarget,
    /// Section 2.5: HTTP/1.0 and HTTP/1.1 are spoken here.
    #[error("HTTP version not supported")]
    Version,
    /// RFC 9110, section 9.3.6: a reverse proxy is no way to elsewhere.
    #[error("CONNECT is not supported")]
    Connect,
    /// Section 2.2: a line ends with CRLF, and neither comes alone.
    #[error("bare CR or LF")]
    LineEnd,
    /// RFC 9110, section 5.5: NUL and other control bytes.
    #[error("control byte in a field")]
    ControlByte,
    /// Section 5.2: a line that continues the one before.
    #[error("folded field line")]
    Folding,
    /// Section 5.1: a token, and the colon right behind it.
    #[error("malformed field name")]
    FieldName,
    /// Longer than [`Limits::head`](super::Limits::head).
    #[error("head too large")]
    LongHead,
    /// More than [`Limits::fields`](super::Limits::fields).
    #[error("too many fields")]
    ManyFields,
    /// Section 3.2.
    #[error("Host header required")]
    NoHost,
    /// Section 3.2.
    #[error("more than one Host header")]
    SeveralHosts,
    /// RFC 9110, section 7.2: a host and a port.
    #[error("malformed Host header")]
    Host,
    /// Section 6.2: digits.
    #[error("malformed Content-Length")]
    Length,
    /// Section 6.3, rule 5: alike or not.
    #[error("more than one Content-Length")]
    SeveralLengths,
    /// Section 6.3, rule 3.
    #[error("Content-Length beside Transfer-Encoding")]
    LengthAndCoding,
    /// Section 6.3, rule 4: chunked is the last coding, and once.
    #[error("malformed Transfer-Encoding")]
    Coding,
    /// Section 6.1.
    #[error("only chunked is supported as transfer coding")]
    UnknownCoding,
    /// Section 6.1: HTTP/1.0 has no transfer codings.
    #[error("Transfer-Encoding in an old version of HTTP")]
    OldCoding,
    /// `Content_Length` and its like.
    #[error("framing field in another spelling")]
    Disguised,
    /// RFC 9110, section 7.6.2: one number.
    #[error("malformed Max-Forwards")]
    MaxForwards,
    /// RFC 9110, section 9.3.8: TRACE has no content.
    #[error("TRACE with content")]
    Trace,
    /// Section 7.1: hexadecimal digits.
    #[error("malformed chunk size")]
    ChunkSize,
    /// Section 7.1.1: well-formed, and not without end.
    #[error("malformed chunk extension")]
    ChunkExtension,
    /// Section 7.1: CRLF behind the data.
    #[error("chunk longer than its size")]
    ChunkEnd,
    /// RFC 9110, section 6.5.1: framing and routing are no matter of trailers.
    #[error("field not allowed in trailers")]
    Trailer,
    /// Section 4: of a response.
    #[error("malformed status line")]
    StatusLine,
}

impl Fault {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 29] = [
        Self::Method,
        Self::RequestLine,
        Self::Target,
        Self::LongTarget,
        Self::Version,
        Self::Connect,
        Self::LineEnd,
        Self::ControlByte,
        Self::Folding,
        Self::FieldName,
        Self::LongHead,
        Self::ManyFields,
        Self::NoHost,
        Self::SeveralHosts,
        Self::Host,
        Self::Length,
        Self::SeveralLengths,
        Self::LengthAndCoding,
        Self::Coding,
        Self::UnknownCoding,
        Self::OldCoding,
        Self::Disguised,
        Self::MaxForwards,
        Self::Trace,
        Self::ChunkSize,
        Self::ChunkExtension,
        Self::ChunkEnd,
        Self::Trailer,
        Self::StatusLine,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its place in [`Fault::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The rule's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::LongTarget => "long_target",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::LineEnd => "line_end",
            Self::ControlByte => "control_byte",
            Self::Folding => "folding",
            Self::FieldName => "field_name",
            Self::LongHead => "long_head",
            Self::ManyFields => "many_fields",
            Self::NoHost => "no_host",
            Self::SeveralHosts => "several_hosts",
            Self::Host => "host",
            Self::Length => "length",
            Self::SeveralLengths => "several_lengths",
            Self::LengthAndCoding => "length_and_coding",
            Self::Coding => "coding",
            Self::UnknownCoding => "unknown_coding",
            Self::OldCoding => "old_coding",
            Self::Disguised => "disguised",
            Self::MaxForwards => "max_forwards",
            Self::Trace => "trace",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::Trailer => "trailer",
            Self::StatusLine => "status_line",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_at_its_index() {
        for (index, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), index, "{fault:?}");
        }
    }
}
