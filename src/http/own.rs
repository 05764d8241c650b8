//! Responses of our own: health checks, refusals, the end of `Max-Forwards`. This is their one writer.

use super::head::{Request, Version};
use super::hop::ConnectionOptions;
use super::write::{line, number};

/// A response that elbows gives in the upstream's place. Each has a short text, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    /// Empty where there is no text.
    pub(crate) content_type: &'a str,
    /// Seconds after which the client may try again.
    pub(crate) retry_after: Option<u64>,
    /// Nobody may keep it for another time.
    pub(crate) is_volatile: bool,
    pub(crate) text: &'a [u8],
}

impl Own<'_> {
    /// Writes it as the answer to a request.
    pub(crate) fn write(&self, out: &mut Vec<u8>, form: Form) {
        out.extend_from_slice(b"HTTP/1.1 ");
        number(out, self.status.into());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if !self.content_type.is_empty() {
            line(out, b"Content-Type", self.content_type.as_bytes());
        }
        if self.is_volatile {
            out.extend_from_slice(b"Cache-Control: no-store\r\n");
        }
        if let Some(seconds) = self.retry_after {
            out.extend_from_slice(b"Retry-After: ");
            number(out, seconds);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Content-Length: ");
        number(out, self.text.len() as u64);
        out.extend_from_slice(b"\r\n");
        match form {
            Form { keeps: false, .. } => out.extend_from_slice(b"Connection: close\r\n"),
            Form { is_http_10: true, .. } => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Form { .. } => {}
        }
        out.extend_from_slice(b"\r\n");
        // RFC 9110, section 9.3.2: no content where HEAD was asked.
        if !form.to_head {
            out.extend_from_slice(self.text);
        }
    }
}

/// What has to be known of a request to answer it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Its method is HEAD.
    pub(crate) to_head: bool,
    /// It is of HTTP/1.0, where it has to be said that a connection goes on.
    pub(crate) is_http_10: bool,
    /// The connection goes on behind the answer.
    pub(crate) keeps: bool,
}

impl Form {
    /// What the head of a request says of its answer (RFC 9112, section 9.3).
    pub(crate) fn of(head: &Request<'_>, options: &ConnectionOptions) -> Self {
        let is_http_10 = head.version == Version::Http10;
        let keeps = !options.close() && (!is_http_10 || options.keep_alive());
        Self { to_head: head.method == b"HEAD", is_http_10, keeps }
    }
}

/// The reason phrases of the statuses that elbows gives itself (RFC 9110, section 15).
const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(to_head: bool, keeps: bool) -> String {
        let own = Own {
            status: 503,
            content_type: "text/plain",
            retry_after: Some(5),
            is_volatile: true,
            text: b"later\n",
        };
        let mut out = Vec::new();
        own.write(&mut out, Form { to_head, is_http_10: false, keeps });
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn answer_to_head_has_the_length_and_no_text() {
        let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n\
                    Cache-Control: no-store\r\nRetry-After: 5\r\nContent-Length: 6\r\n";
        assert_eq!(written(false, true), format!("{head}\r\nlater\n"));
        assert_eq!(written(true, false), format!("{head}Connection: close\r\n\r\n"));
    }
}
