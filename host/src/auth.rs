//! Who may come in: callers by their keys, operators by theirs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Uri};
use sha2::{Digest, Sha256};
use sluice_ledger::keys::ring::{Key, Stranger};
use subtle::ConstantTimeEq;

use crate::caller::Caller;
use crate::config::Access;
use crate::key_book::KeyBook;
use crate::market::{self, Jobs};
use crate::money::unix_ms;
use crate::refusal::Refusal;

/// Where clients put their keys: OpenAI's, Anthropic's, Azure's.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// What our own keys begin with.
const OURS: &str = "sk-sluice-";

/// Where proxies say where a request comes from: the nearest last.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// By whom callers are known; none where there is no ledger, or no market.
#[derive(Clone, Copy)]
pub(crate) struct Known<'k> {
    pub(crate) keys: Option<&'k Arc<KeyBook>>,
    pub(crate) jobs: Option<&'k Arc<Jobs>>,
}

/// Who is asking for a completion. A key of ours counts also where none is required.
///
/// # Errors
///
/// [`Refusal::Key`]: nobody is told more than that it does not work, but who has its secret.
pub(crate) fn caller(
    access: &Access,
    known: Known<'_>,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Caller, Refusal> {
    let Known { keys, jobs } = known;
    let token = token(headers).unwrap_or_default();
    if let Some(jobs) = jobs
        && token.starts_with(market::PREFIX)
    {
        return jobs.enter(token, unix_ms()).map(Caller::of_job).map_err(stranger);
    }
    let key = match keys {
        Some(keys) if token.starts_with(OURS) => {
            Some(keys.ring().identify(token, unix_ms()).map_err(stranger)?)
        }
        Some(_) | None if access.keys_required => return Err(Refusal::Key { wrong: NO_KEY }),
        Some(_) | None => None,
    };
    if let Some(key) = &key
        && !key.allows_address(origin(access, headers, peer))
    {
        return Err(Refusal::Key { wrong: "does not work from this address" });
    }
    Caller::read(headers, key.map(|key| identity(access, key)))
}

/// What is known of a key's caller.
pub(crate) struct Identity {
    pub(crate) key: Arc<Key>,
    /// Limits of its team.
    pub(crate) team: Option<crate::config::Limits>,
}

/// An operator. Without a key it is whoever sits at this machine, which a web page does not.
///
/// # Errors
///
/// [`Refusal::AdminKey`], [`Refusal::ForeignOrigin`].
pub(crate) fn admin(access: &Access, uri: &Uri, headers: &HeaderMap, peer: IpAddr) -> Result<(), Refusal> {
    let Some(key) = &access.admin_key else {
        // A proxy on this machine would let everybody in.
        let direct = peer.is_loopback() && !headers.contains_key(FORWARDED);
        return if direct { check_origin(uri, headers) } else { Err(Refusal::AdminKey { set: false }) };
    };
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    let given = digest(token(headers).unwrap_or_default());
    match bool::from(given.as_slice().ct_eq(digest(key.reveal()).as_slice())) {
        true => Ok(()),
        false => Err(Refusal::AdminKey { set: true }),
    }
}

/// Who an operator is, for the audit.
pub(crate) fn actor(access: &Access, headers: &HeaderMap, peer: IpAddr) -> String {
    format!("admin {}", origin(access, headers, peer))
}

const NO_KEY: &str =
    "is missing or does not exist: send it as `authorization: Bearer KEY` or `x-api-key: KEY`";

fn stranger(why: Stranger) -> Refusal {
    let wrong = match why {
        Stranger::Malformed | Stranger::Unknown => NO_KEY,
        Stranger::Revoked => "was revoked",
        Stranger::Expired => "has expired",
    };
    Refusal::Key { wrong }
}

fn identity(access: &Access, key: Arc<Key>) -> Identity {
    let team = access.teams.get(&**key.team()).copied();
    Identity { key, team }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, token) = value.split_once(' ').unwrap_or(("bearer", value));
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    KEY_HEADERS.iter().find_map(|name| headers.get(name)?.to_str().ok()).map(str::trim)
}

/// Where a request comes from: the last address that no proxy of the operator's has written.
fn origin(access: &Access, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let is_trusted = |address: &IpAddr| {
        access.trusted_proxies.iter().any(|network| network.contains(&address.to_canonical()))
    };
    if !is_trusted(&peer) {
        return peer.to_canonical();
    }
    let named: Vec<&str> = headers
        .get_all(FORWARDED)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut origin = peer;
    for text in named.into_iter().rev() {
        // What is no address is not believed, nor what stands before it.
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        origin = address;
        if !is_trusted(&origin) {
            break;
        }
    }
    origin.to_canonical()
}

/// Where no key is wanted, only this machine's own pages and programs may ask: a name that was rebound
/// to 127.0.0.1 shows in `Host`, a foreign page in `Origin`.
///
/// # Errors
///
/// [`Refusal::ForeignOrigin`].
pub(crate) fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let foreign_origin = origin.is_some_and(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !authority.is_some_and(is_this_machine)
    });
    match host {
        Some(host) if is_this_machine(host) && !foreign_origin => Ok(()),
        _ => Err(Refusal::ForeignOrigin),
    }
}

fn is_this_machine(authority: &str) -> bool {
    let with_port =
        |name: &str| authority.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| name.parse());
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || with_port(bare).is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn keys_are_found_where_the_sdks_put_them() {
        for (rows, wanted) in [
            (&[("authorization", "Bearer a")][..], Some("a")),
            (&[("authorization", "bearer  a ")], Some("a")),
            (&[("authorization", "a")], Some("a")),
            (&[("authorization", "Basic a")], None),
            (&[("x-api-key", "b")], Some("b")),
            (&[("api-key", "c")], Some("c")),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], Some("a")),
            (&[], None),
        ] {
            assert_eq!(token(&headers(rows)), wanted, "{rows:?}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let access = Access { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Access::default() };
        let from = |peer: &str, forwarded: Option<&'static str>| {
            let headers =
                forwarded.map_or_else(HeaderMap::new, |value| headers(&[("x-forwarded-for", value)]));
            origin(&access, &headers, peer.parse().unwrap()).to_string()
        };
        assert_eq!(from("1.2.3.4", Some("9.9.9.9")), "1.2.3.4");
        assert_eq!(from("10.0.0.1", Some("9.9.9.9")), "9.9.9.9");
        assert_eq!(from("10.0.0.1", Some("6.6.6.6, 9.9.9.9, 10.0.0.2")), "9.9.9.9", "what a client wrote");
        assert_eq!(from("10.0.0.1", Some("nonsense")), "10.0.0.1");
        assert_eq!(from("10.0.0.1", None), "10.0.0.1");
        assert_eq!(from("::ffff:10.0.0.1", Some("::ffff:9.9.9.9")), "9.9.9.9");
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        for authority in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8080"]
        {
            assert!(is_this_machine(authority), "{authority}");
        }
        for authority in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:1",
            "evil:80",
        ] {
            assert!(!is_this_machine(authority), "{authority}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused_whatever_host_it_names() {
        let check = |host: Option<&'static str>, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOST, host), (ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            check_origin(&Uri::from_static("/x"), &headers).is_ok()
        };
        assert!(check(Some("localhost:1"), None));
        assert!(check(Some("localhost:1"), Some("http://localhost:3000")));
        assert!(!check(Some("evil.example"), None));
        assert!(!check(None, None));
        assert!(!check(Some("localhost:1"), Some("https://evil.example")));
        assert!(!check(Some("localhost:1"), Some("null")));
    }

    #[test]
    fn without_an_admin_key_only_this_machine_is_the_operator() {
        let (open, local) = (Access::default(), "127.0.0.1".parse().unwrap());
        let ask = |access: &Access, rows: &[(&'static str, &'static str)], peer| {
            admin(access, &Uri::from_static("/x"), &headers(rows), peer)
        };
        let host = ("host", "localhost:8080");
        assert!(ask(&open, &[host], local).is_ok());
        assert!(ask(&open, &[host], "10.0.0.1".parse().unwrap()).is_err());
        assert!(ask(&open, &[host, ("x-forwarded-for", "1.2.3.4")], local).is_err());
        for foreign in [&[host, ("origin", "https://evil.example")][..], &[("host", "evil.example")], &[]] {
            assert!(matches!(ask(&open, foreign, local), Err(Refusal::ForeignOrigin)), "{foreign:?}");
        }
        let access = Access { admin_key: crate::config::Secret::new("secret"), ..Access::default() };
        assert!(ask(&access, &[host], local).is_err());
        assert!(ask(&access, &[("authorization", "Bearer wrong")], local).is_err());
        assert!(ask(&access, &[("authorization", "Bearer secret")], local).is_ok());
    }
}
