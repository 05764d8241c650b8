//! Who may ask, and who may change something. Pure.
//!
//! A page of any site can have a browser send requests to an address of its user's own machine or network, and, where
//! the site's name is made to resolve to that address (DNS rebinding), can read the answers. It cannot choose `Host`,
//! `Origin` and `Sec-Fetch-Site`, which tell of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use subtle::ConstantTimeEq;

use super::fault::Fault;
use crate::config::{AdminHosts, AdminToken};

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asker<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) origin: Option<&'a str>,
    /// `Sec-Fetch-Site`, which browsers send.
    pub(crate) fetch_site: Option<&'a str>,
    pub(crate) authorization: Option<&'a str>,
    /// It came over a UNIX socket, where no browser is.
    pub(crate) is_local: bool,
}

impl Asker<'_> {
    /// Whether it may ask: its `Host` can be none that somebody made resolve to this machine.
    ///
    /// That takes a name of a public domain, which has a dot. An address, `localhost`, and a name of one label, as
    /// container networks have them, are none. Others are those that the operator has listed.
    pub(crate) fn may_ask(&self, hosts: Option<&AdminHosts>) -> Result<(), Fault> {
        if self.is_local {
            return Ok(());
        }
        let host = self.host.unwrap_or_default();
        if may_be_asked_by(host, hosts) {
            return Ok(());
        }
        Err(Fault::new(
            403,
            format!(
                "Host {host:?}: ask by an IP address, localhost, a name without dots or one that ADMIN_HOSTS \
                 lists, so that no page can do so by a name that it has resolve to this machine"
            ),
        ))
    }

    /// Whether it is no page of another site, as far as its browser tells. Such a page cannot read the answers, but it
    /// could take the places of others.
    pub(crate) fn is_of_this_site(&self) -> Result<(), Fault> {
        match self.fetch_site {
            None | Some("same-origin" | "none") => Ok(()),
            Some(site) => Err(Fault::new(
                403,
                format!("Sec-Fetch-Site {site:?}: a page of another site gets nothing here"),
            )),
        }
    }

    /// Whether it may change something.
    pub(crate) fn may_change(&self, token: Option<&AdminToken>) -> Result<(), Fault> {
        self.is_of_this_site()?;
        // Whoever puts TLS in front has https.
        let is_own = |origin: &&str| {
            let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            name.is_some() && name == self.host
        };
        if let Some(origin) = self.origin.filter(|origin| !is_own(origin)) {
            return Err(Fault::new(
                403,
                format!("Origin {origin:?}: a page of another site changes nothing here"),
            ));
        }
        let Some(token) = token else {
            return Err(Fault::new(
                403,
                "ADMIN_TOKEN is not set: without it nothing can be changed here",
            ));
        };
        let Some(given) = self.authorization.and_then(bearer) else {
            return Err(Fault::new(
                401,
                "Authorization: what changes something needs ADMIN_TOKEN, as Bearer (RFC 6750)",
            ));
        };
        // A token of another length is none, which tells that length and no more.
        if bool::from(token.as_bytes().ct_eq(given.as_bytes())) {
            Ok(())
        } else {
            Err(Fault::new(401, "Authorization: this is not the token that ADMIN_TOKEN has"))
        }
    }
}

/// Whether this `Host` is one to ask by: an address or a name, and nothing behind it but a port (RFC 9110, section 7.2).
fn may_be_asked_by(host: &str, hosts: Option<&AdminHosts>) -> bool {
    let (is_known, rest) = match host.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, rest))) => (address.parse::<Ipv6Addr>().is_ok(), rest),
        Some(None) => return false,
        None => {
            let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
            let is_listed = hosts.is_some_and(|hosts| hosts.has(name));
            (is_listed || is_label(name) || name.parse::<Ipv4Addr>().is_ok(), rest)
        }
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    is_known && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

fn is_label(name: &str) -> bool {
    let is_of_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_of_label)
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef-token";

    fn change(asker: Asker<'_>) -> Result<(), u16> {
        asker.may_change(Some(&AdminToken::new(TOKEN))).map_err(|fault| {
            assert!(!fault.message.contains(TOKEN));
            fault.status
        })
    }

    fn asker<'a>() -> Asker<'a> {
        Asker {
            host: Some("127.0.0.1:9145"),
            authorization: Some("Bearer 0123456789abcdef-token"),
            ..Asker::default()
        }
    }

    #[test]
    fn host_is_an_address_or_a_name_without_dots() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9145",
            "[::1]:9145",
            "[::1]",
            "10.0.0.5:9145",
            "localhost:9145",
            "elbows:9145",
            "elbows_1",
            "LOCALHOST",
        ] {
            assert_eq!(Asker { host: Some(host), ..asker() }.may_ask(None), Ok(()), "{host}");
        }
        for host in [
            "",
            "rebind.attacker.example",
            "rebind.attacker.example:9145",
            "127.0.0.1.nip.io:9145",
            "localhost.",
            "a b",
            "[::1",
            "user@localhost",
            "[::1].attacker.example",
            "[::1]9145",
            "[localhost]",
            "[127.0.0.1]:9145",
            "127.0.0.1:attacker.example",
            "localhost:91a",
            "::1",
        ] {
            let fault = Asker { host: Some(host), ..asker() }.may_ask(None).unwrap_err();
            assert!(fault.status == 403 && fault.message.contains(&format!("{host:?}")), "{host}");
        }
        let listed = AdminHosts::read("elbows.example.internal, Metrics.example.com").unwrap();
        for (host, passes) in [
            ("elbows.example.internal", true),
            ("Elbows.Example.Internal:9145", true),
            ("metrics.example.com", true),
            ("other.example.com", false),
            ("elbows.example.internal.attacker.example", false),
            ("a.elbows.example.internal", false),
        ] {
            let asked = Asker { host: Some(host), ..asker() }.may_ask(Some(&listed));
            assert_eq!(asked.is_ok(), passes, "{host}");
        }
        for wrong in ["", "a,,b", "elbows.example.com:9145", "*.example.com", "a b"] {
            assert!(AdminHosts::read(wrong).is_err(), "{wrong}");
        }
        assert!(Asker { host: None, ..asker() }.may_ask(None).is_err());
        assert!(Asker { host: None, is_local: true, ..asker() }.may_ask(None).is_ok());
    }

    #[test]
    fn token_is_the_whole_one_and_nothing_else() {
        assert_eq!(change(asker()), Ok(()));
        for authorization in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer 0123456789abcdef-toke"),
            Some("Bearer 0123456789abcdef-tokenn"),
            Some("Bearer 0123456789ABCDEF-TOKEN"),
            Some("Basic 0123456789abcdef-token"),
            Some("0123456789abcdef-token"),
        ] {
            assert_eq!(change(Asker { authorization, ..asker() }), Err(401), "{authorization:?}");
        }
        let fault = asker().may_change(None).unwrap_err();
        assert!(fault.status == 403 && fault.message.contains("ADMIN_TOKEN"));
    }

    #[test]
    fn page_of_another_site_changes_nothing_even_with_the_token() {
        for origin in
            ["https://attacker.example", "http://127.0.0.1:9146", "null", "http://127.0.0.1"]
        {
            assert_eq!(change(Asker { origin: Some(origin), ..asker() }), Err(403), "{origin}");
        }
        for origin in ["http://127.0.0.1:9145", "https://127.0.0.1:9145"] {
            assert_eq!(change(Asker { origin: Some(origin), ..asker() }), Ok(()), "{origin}");
        }
        let nobody = Asker { host: None, origin: Some("http://"), ..asker() };
        assert_eq!(change(nobody), Err(403));
        for fetch_site in ["cross-site", "same-site", "nonsense"] {
            assert_eq!(change(Asker { fetch_site: Some(fetch_site), ..asker() }), Err(403));
        }
        for fetch_site in ["same-origin", "none"] {
            assert_eq!(change(Asker { fetch_site: Some(fetch_site), ..asker() }), Ok(()));
        }
    }
}
