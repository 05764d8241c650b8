//! The rules of RFC 9112 that a message can break, by name.

use crate::words::words;

words! {
    /// A rule that was broken. The words are those of logs, counters and `docs/security.md`.
    #[derive(thiserror::Error)]
    pub enum Fault {
        /// Section 3.1: the method is a token.
        #[error("malformed method")]
        Method = "method",
        /// Section 3: three parts, one space between each, a version behind them.
        #[error("malformed request line")]
        RequestLine = "request_line",
        /// Section 3.2: origin form, absolute form of an http URI, or `*` with OPTIONS; no control byte, space, DEL or `#`.
        #[error("malformed request target")]
        Target = "target",
        /// Longer than [`HeadLimits::target`](super::HeadLimits::target).
        #[error("request target too long")]
        LongTarget = "long_target",
        /// Section 2.5: HTTP/1.0 and HTTP/1.1 are spoken here.
        #[error("HTTP version not supported")]
        Version = "version",
        /// RFC 9110, section 9.3.6: a reverse proxy is no way to elsewhere.
        #[error("CONNECT is not supported")]
        Connect = "connect",
        /// Section 2.2: a line ends with CRLF, and neither comes alone.
        #[error("bare CR or LF")]
        LineEnd = "line_end",
        /// RFC 9110, section 5.5: NUL and other control bytes.
        #[error("control byte in a field")]
        ControlByte = "control_byte",
        /// Section 5.2: a line that continues the one before.
        #[error("folded field line")]
        Folding = "folding",
        /// Section 5.1: a token, and the colon right behind it.
        #[error("malformed field name")]
        FieldName = "field_name",
        /// Longer than [`HeadLimits::head`](super::HeadLimits::head).
        #[error("head too large")]
        LongHead = "long_head",
        /// More than [`HeadLimits::fields`](super::HeadLimits::fields).
        #[error("too many fields")]
        ManyFields = "many_fields",
        /// Section 3.2.
        #[error("Host header required")]
        NoHost = "no_host",
        /// Section 3.2.
        #[error("more than one Host header")]
        SeveralHosts = "several_hosts",
        /// RFC 9110, section 7.2: a host and a port.
        #[error("malformed Host header")]
        Host = "host",
        /// Section 6.2: digits.
        #[error("malformed Content-Length")]
        Length = "length",
        /// Section 6.3, rule 5: alike or not.
        #[error("more than one Content-Length")]
        SeveralLengths = "several_lengths",
        /// Section 6.3, rule 3.
        #[error("Content-Length beside Transfer-Encoding")]
        LengthAndCoding = "length_and_coding",
        /// Section 6.3, rule 4: chunked is the last coding, and once.
        #[error("malformed Transfer-Encoding")]
        Coding = "coding",
        /// Section 6.1.
        #[error("only chunked is supported as transfer coding")]
        UnknownCoding = "unknown_coding",
        /// Section 6.1: HTTP/1.0 has no transfer codings.
        #[error("Transfer-Encoding in an old version of HTTP")]
        OldCoding = "old_coding",
        /// `Content_Length` and its like.
        #[error("framing field in another spelling")]
        Disguised = "disguised",
        /// RFC 9110, section 7.6.2: one number.
        #[error("malformed Max-Forwards")]
        MaxForwards = "max_forwards",
        /// RFC 9110, section 9.3.8: TRACE has no content.
        #[error("TRACE with content")]
        Trace = "trace",
        /// Section 7.1: hexadecimal digits.
        #[error("malformed chunk size")]
        ChunkSize = "chunk_size",
        /// Section 7.1.1: well-formed, and not without end.
        #[error("malformed chunk extension")]
        ChunkExtension = "chunk_extension",
        /// Section 7.1: CRLF behind the data.
        #[error("chunk longer than its size")]
        ChunkEnd = "chunk_end",
        /// RFC 9110, section 6.5.1: framing and routing are no matter of trailers.
        #[error("field not allowed in trailers")]
        Trailer = "trailer",
        /// Section 4: of a response.
        #[error("malformed status line")]
        StatusLine = "status_line",
    }
}
