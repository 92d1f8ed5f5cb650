//! What an upstream's models cost and how long their calls can be, where their targets do not say: by the
//! operator's `[[prices]]`, else by the price list, where the upstream is a vendor of the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_core::bound::Bounds;
use sluice_core::price::Price;
use url::Url;

use super::price_list::Listed;
use super::reader::Table;
use super::{ConfigError, Place, Upstream, catalogue, price, price_list};

/// Tables of `[[prices]]` at most.
const PRICES_MAX: usize = 4096;

/// One model's price and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tariff {
    pub(crate) price: Price,
    pub(crate) bounds: Bounds,
    pub(crate) origin: Origin,
}

/// Who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A table of `[[prices]]`.
    Config(Place),
    /// The price list.
    List(Arc<Listed>),
}

/// The tariffs of one upstream, by its names for the models; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tariffs(Arc<BTreeMap<String, Tariff>>);

/// A table of `[[prices]]`.
pub(super) struct Written {
    upstream: String,
    model: String,
    price: Price,
    bounds: Bounds,
    place: Place,
}

impl Tariffs {
    /// What is said of a model, but for its target.
    pub(crate) fn get(&self, model: &str) -> Option<&Tariff> {
        self.0.get(model)
    }

    /// By name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Tariff)> {
        self.0.iter().map(|(name, tariff)| (name.as_str(), tariff))
    }

    /// The price of a target: its `own`, whole, or that of its model.
    pub(crate) fn price<'a>(&'a self, own: Option<&'a Price>, model: &str) -> Option<&'a Price> {
        own.or_else(|| self.get(model).map(|tariff| &tariff.price))
    }

    /// The bounds of a target: its `own`, and where it says nothing those of its model.
    pub(crate) fn bounds(&self, own: Bounds, model: &str) -> Bounds {
        self.get(model).map_or(own, |tariff| own.or(tariff.bounds))
    }
}

/// Reads `[[prices]]`.
pub(super) fn read(root: &Table<'_>, upstreams: &[Upstream]) -> Vec<Written> {
    let Some(found) = root.get("prices") else { return Vec::new() };
    let tables = found.tables();
    if tables.len() > PRICES_MAX {
        found.refuse::<()>(format!("wanted {PRICES_MAX} prices at most"));
    }
    let mut prices: Vec<Written> = Vec::new();
    for table in &tables {
        let Some(one) = written(table, upstreams) else { continue };
        match prices.iter().find(|other| other.upstream == one.upstream && other.model == one.model) {
            Some(first) => {
                let line = first.place.line;
                let twice =
                    format!("{:?} of {:?} has a price already, in line {line}", one.model, one.upstream);
                root.report(one.place.problem(twice));
            }
            None => prices.push(one),
        }
    }
    prices
}

fn written(table: &Table<'_>, upstreams: &[Upstream]) -> Option<Written> {
    let upstream = table.require("upstream", "the name of a table under [upstreams]");
    let upstream = upstream.and_then(|found| match found.text()? {
        text if upstreams.iter().any(|known| known.name == text) => Some(text.to_owned()),
        _ => found.refuse(no_such_upstream(upstreams)),
    });
    let model = table.require("model", "the upstream's own name of the model").and_then(|found| match found
        .text()?
    {
        text if text.is_empty() || text.contains('*') => {
            found.refuse("wanted the upstream's own name of one model, without *")
        }
        text => Some(text.to_owned()),
    });
    let bounds = price::bounds(table);
    // The table has no other keys: this looks for strangers, too.
    let price = price::price(table);
    Some(Written { upstream: upstream?, model: model?, price: price?, bounds, place: table.place() })
}

pub(super) fn no_such_upstream(upstreams: &[Upstream]) -> String {
    let known: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    format!("no such upstream; there are: {known}")
}

/// Gives each upstream its tariffs.
///
/// # Errors
///
/// [`ConfigError`] where what is embedded cannot be read.
pub(super) fn assign(prices: Vec<Written>, upstreams: &mut [Upstream]) -> Result<(), ConfigError> {
    let mut all = listed(upstreams)?;
    for Written { upstream, model, price, bounds, place } in prices {
        let tariffs = all.entry(upstream).or_default();
        let bounds = tariffs.get(&model).map_or(bounds, |listed| bounds.or(listed.bounds));
        tariffs.insert(model, Tariff { price, bounds, origin: Origin::Config(place) });
    }
    for upstream in upstreams {
        upstream.tariffs = Tariffs(Arc::new(all.remove(&upstream.name).unwrap_or_default()));
    }
    Ok(())
}

/// The list's, by upstream.
fn listed(upstreams: &[Upstream]) -> Result<BTreeMap<String, BTreeMap<String, Tariff>>, ConfigError> {
    let catalogue = catalogue::addresses()?;
    let vendor = |upstream: &Upstream| {
        let base_url = upstream.base_url.as_ref()?;
        catalogue.iter().find(|(_, known)| is_same(known, base_url)).map(|(vendor, _)| vendor.as_str())
    };
    let vendors: Vec<(&Upstream, &str)> =
        upstreams.iter().filter_map(|upstream| Some((upstream, vendor(upstream)?))).collect();
    if vendors.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = price_list::rows()?;
    let of =
        |vendor: &str| rows.iter().filter(|row| row.vendor == vendor).flat_map(|row| row.tariffs()).collect();
    Ok(vendors.into_iter().map(|(upstream, vendor)| (upstream.name.clone(), of(vendor))).collect())
}

/// The same service: another host, port, scheme or path may have other prices.
fn is_same(known: &Url, other: &Url) -> bool {
    fn path(url: &Url) -> &str {
        url.path().trim_end_matches('/')
    }
    known.scheme() == other.scheme()
        && known.host() == other.host()
        && known.port_or_known_default() == other.port_or_known_default()
        && path(known) == path(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_its_address_and_no_other() {
        let known: Url = "https://api.vendor.example/v1".parse().unwrap();
        let is = |text: &str| is_same(&known, &text.parse().unwrap());
        for same in ["", "/", "//"] {
            assert!(is(&format!("https://api.vendor.example/v1{same}")));
        }
        assert!(is("HTTPS://API.vendor.example:443/v1"));
        for other in [
            "http://api.vendor.example/v1",
            "https://api.vendor.example:8443/v1",
            "https://api.vendor.example",
            "https://api.vendor.example/v1/eu",
            "https://api.vendor.example/V1",
            "https://eu.api.vendor.example/v1",
            "https://api.vendor.example.org/v1",
            "http://127.0.0.1:9090/v1",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn no_two_vendors_have_one_address() {
        let catalogue = catalogue::addresses().unwrap();
        for (name, url) in &catalogue {
            let same = catalogue.iter().filter(|(_, other)| is_same(url, other)).count();
            assert_eq!(same, 1, "{name}");
        }
    }
}
