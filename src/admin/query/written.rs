//! A query as text that is read as the same query: for tests and the fuzz target.

use std::time::Duration;

use form_urlencoded::Serializer;

use super::{Network, Query};

impl Query {
    pub(crate) fn written(&self) -> String {
        let Self {
            client,
            upstream,
            path,
            search,
            older,
            idle,
            state,
            sorting,
            limit,
            behind,
            process,
        } = self;
        let cursor = |place: &super::Place| place.cursor(process.unwrap_or_default());
        let network = |network: &Network| match network {
            Network::Socket(address) => address.to_string(),
            Network::Net(net) => net.to_string(),
        };
        let time = |time: &Duration| format!("{}s {}ns", time.as_secs(), time.subsec_nanos());
        let minus = if sorting.is_descending { "-" } else { "" };
        let all = [
            ("client", client.as_ref().map(network)),
            ("upstream", upstream.as_ref().map(network)),
            ("path", path.clone()),
            ("search", search.as_ref().map(|search| search.text.clone())),
            ("older", older.as_ref().map(time)),
            ("idle", idle.as_ref().map(time)),
            ("state", state.map(|state| state.as_str().to_owned())),
            ("sort", Some(format!("{minus}{}", sorting.field.as_str()))),
            ("limit", Some(limit.to_string())),
            ("cursor", behind.as_ref().map(cursor)),
        ];
        let mut query = Serializer::new(String::new());
        query.extend_pairs(all.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        query.finish()
    }
}
