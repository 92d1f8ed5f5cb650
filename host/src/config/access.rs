//! Who may ask: client keys, the admin key, proxies whose word counts, teams.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::limits::limits;
use super::reader::{Found, Table};
use super::sections::secret;
use super::{Environment, Limits, Secret};

/// Access to the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Nobody gets a completion without a key.
    pub(crate) keys_required: bool,
    /// None: the admin pages are for this machine alone.
    pub(crate) admin_key: Option<Secret>,
    /// Proxies that say where a request comes from.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Limits of teams, by name.
    pub(crate) teams: BTreeMap<Arc<str>, Limits>,
}

pub(super) fn access(root: &Table<'_>, environment: &Environment) -> Access {
    let mut access = Access::default();
    if let Some(table) = root.table("keys") {
        if let Some(found) = table.get("required") {
            access.keys_required = found.truth().unwrap_or(true);
        }
        table.finish();
    }
    if let Some(table) = root.table("admin") {
        // Hidden: who writes the key itself there is not to read it in a message.
        access.admin_key = table.get("key").and_then(|found| secret(&found.hidden(), environment));
        table.finish();
    }
    if let Some(table) = root.table("teams") {
        for (name, found) in table.named() {
            if let Some(team) = found.table() {
                access.teams.insert(name.into(), limits(&team));
                team.finish();
            }
        }
    }
    access
}

/// Addresses and networks.
pub(super) fn networks(found: &Found<'_>) -> Vec<IpNet> {
    let wanted = "wanted addresses or networks such as \"10.0.0.0/8\" or \"::1\"";
    let network = |item: Found<'_>| {
        let text = item.text()?.trim();
        let parsed = text
            .parse::<IpNet>()
            .ok()
            .or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()));
        match parsed {
            Some(network) => Some(network),
            None => item.refuse(wanted),
        }
    };
    found.items().into_iter().filter_map(network).collect()
}
