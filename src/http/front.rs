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
    /// How much the head of a request may hold.
    pub(crate) const fn head_limits(&self) -> head::Limits {
        let Config { max_header_size, max_headers, .. } = self.config;
        head::Limits { head: max_header_size, fields: max_headers, ..head::Limits::DEFAULT }
    }
}
