//! What every connection of the front shares. The server makes it once; each request reads it.

use std::sync::Arc;

use super::head;
use super::{FromClient, RequestIds};
use crate::access_log::AccessLog;
use crate::config::Config;
use crate::drain::{Census, Drain};
use crate::limits::Limits;
use crate::metrics::Counters;
use crate::relay::Relay;
use crate::upstream::{Pool, Upstream};

/// Shared by every connection.
pub(crate) struct Front {
    pub(crate) config: Config,
    pub(crate) upstream: Upstream,
    pub(crate) pool: Pool<FromClient>,
    pub(crate) relay: Relay,
    pub(crate) access_log: AccessLog,
    pub(crate) counters: Arc<Counters>,
    pub(crate) census: Census,
    pub(crate) drain: Drain,
    pub(crate) limits: Limits,
    pub(crate) request_ids: RequestIds,
}

impl Front {
    /// What a client's head may hold.
    pub(crate) fn head_limits(&self) -> head::Limits {
        head::Limits {
            head: self.config.max_header_size,
            fields: self.config.max_headers,
            ..head::Limits::DEFAULT
        }
    }
}
