//! What of a request says which route it takes. Pure.

use crate::http::head::{Field, Request, Target};

/// The part of a request that routes look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteInput<'a> {
    /// Without its port and the root's dot; empty where there is none.
    pub(crate) host: &'a [u8],
    /// As it came, without its query.
    pub(crate) path: &'a [u8],
    pub(crate) fields: &'a [Field<'a>],
    pub(crate) is_upgrade: bool,
}

impl<'a> RouteInput<'a> {
    pub(crate) fn of(head: &'a Request<'_>, is_upgrade: bool) -> Self {
        // RFC 9112, section 3.2: the authority of the absolute form replaces `Host`.
        let (host, target): (_, &[u8]) = match head.target {
            Target::Origin(target) => (head.host.unwrap_or_default(), target),
            Target::Asterisk => (head.host.unwrap_or_default(), b"*"),
            Target::Absolute(host, b"") if head.is_server_wide() => (host, b"*"),
            Target::Absolute(host, path) => (host, path),
        };
        Self { host: without_port(host), path: path_of(target), fields: &head.fields, is_upgrade }
    }
}

/// The path of a target: what stands before the query. An absolute target may have none, which is `/`.
pub(crate) fn path_of(target: &[u8]) -> &[u8] {
    match target.iter().position(|byte| *byte == b'?').map_or(Some(target), |end| target.get(..end))
    {
        None | Some([]) => b"/",
        Some(path) => path,
    }
}

/// A host without its port and without the root's dot (RFC 9110, section 4.2.3: the port of an URI is another matter
/// than its host; RFC 1034, section 3.1: the name is the same with and without the dot).
pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let host = match host.len().checked_sub(digits).and_then(|end| host.get(..end)) {
        Some([name @ .., b':']) if !name.starts_with(b"[") || name.ends_with(b"]") => name,
        _ => host,
    };
    host.strip_suffix(b".").unwrap_or(host)
}
