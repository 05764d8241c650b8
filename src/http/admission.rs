//! Whether a request that is well formed may pass: the limits and rules of the settings.

use http::Request;
use http::header::ORIGIN;
use http_body::Body;

use super::Front;
use super::reject::Rejection;
use crate::client::Client;
use crate::config::MissingOrigin;

/// Holds a request, which asks for an upgrade or does not, against the settings.
pub(super) fn check<B: Body>(
    request: &Request<B>,
    is_upgrade: bool,
    client: &Client,
    front: &Front,
) -> Result<(), Rejection> {
    if is_upgrade {
        front.limits.handshake(client.address, client.balancer).map_err(Rejection::Over)?;
        check_origin(request, front)?;
    }
    // One whose length is not known is counted as it comes.
    match front.config.max_body_size {
        Some(most) if request.body().size_hint().lower() > most => Err(Rejection::LongBody),
        _ => Ok(()),
    }
}

/// RFC 6455, sections 4.2.2 and 10.2. Several are no origin at all.
fn check_origin<B>(request: &Request<B>, front: &Front) -> Result<(), Rejection> {
    let Some(allowed) = &front.config.allowed_origins else { return Ok(()) };
    let mut origins = request.headers().get_all(ORIGIN).iter();
    let is_allowed = match (origins.next(), origins.next()) {
        (None, _) => front.config.missing_origin == MissingOrigin::Allow,
        (Some(origin), None) => allowed.allow(origin.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    if is_allowed { Ok(()) } else { Err(Rejection::Origin) }
}
