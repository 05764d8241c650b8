//! Whether a request that is well formed may pass: the limits and rules of the settings.

use http::Request;
use http_body::Body;

use super::Front;
use super::head;
use super::reject::Rejection;
use crate::client::Client;
use crate::config::MissingOrigin;

/// Holds a request to upgrade against the settings.
pub(super) fn upgrade(
    head: &head::Request<'_>,
    client: &Client,
    front: &Front,
) -> Result<(), Rejection> {
    front.limits.handshake(client.address, client.balancer).map_err(Rejection::Over)?;
    check_origin(head, front)
}

/// Holds a request's body against the settings. One whose length is not known is counted as it comes.
pub(super) fn body<B: Body>(request: &Request<B>, front: &Front) -> Result<(), Rejection> {
    match front.config.max_body_size {
        Some(most) if request.body().size_hint().lower() > most => Err(Rejection::LongBody),
        _ => Ok(()),
    }
}

/// RFC 6455, sections 4.2.2 and 10.2. Several are no origin at all.
fn check_origin(head: &head::Request<'_>, front: &Front) -> Result<(), Rejection> {
    let Some(allowed) = &front.config.allowed_origins else { return Ok(()) };
    let mut origins = head.fields.iter().filter(|field| field.is("origin"));
    let is_allowed = match (origins.next(), origins.next()) {
        (None, _) => front.config.missing_origin == MissingOrigin::Allow,
        (Some(origin), None) => allowed.allow(origin.value),
        (Some(_), Some(_)) => false,
    };
    if is_allowed { Ok(()) } else { Err(Rejection::Origin) }
}
