//! What is there without a file: the `echo` model, and every vendor of the embedded
//! catalogue whose key variable is set.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use sluice_core::bound::Bounds;
use sluice_core::pattern::Pattern;
use url::Url;

use super::sections::DEFAULT_POLICY;
use super::tariffs::{self, Tariffs};
use super::{
    Absent, Access, Config, ConfigError, Environment, Ledger, Limits, Located, Model, Place, PluginFolder,
    Secret, Server, Target, TargetModel, Upstream, VendorTimers, timers,
};

/// Data, not code: what is known about vendors.
const VENDORS: &str = include_str!("../../../plugins/vendors.toml");

/// The model that needs no network, its adapter, and the upstreams that its policy ranks.
const ECHO: &str = "echo";
const ECHO_UPSTREAMS: [&str; 2] = ["echo-1", "echo-2"];

/// The slot that catalogue adapters take the vendor's key from.
const KEY_SLOT: &str = "api-key";

/// One vendor of the catalogue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vendor {
    #[serde(rename = "title")]
    _title: String,
    base_url: Url,
    key: String,
    adapter: String,
    #[serde(rename = "docs")]
    _docs: String,
    #[serde(default)]
    config: serde_json::Map<String, serde_json::Value>,
}

/// The configuration of somebody who has written none.
pub(super) fn without_file(environment: &Environment) -> Result<Config, ConfigError> {
    let mut upstreams: Vec<Upstream> = ECHO_UPSTREAMS.iter().map(|name| echo_upstream(name)).collect();
    let mut models = vec![model(ECHO, &ECHO_UPSTREAMS, TargetModel::AsAsked)];
    let mut absent = Vec::new();
    for (name, vendor) in vendors()? {
        let models_of = format!("{name}/*");
        match environment.get(&vendor.key).and_then(Secret::new) {
            None => absent.push(Absent { models: models_of, key: vendor.key }),
            Some(key) => {
                models.push(model(&models_of, &[&name], TargetModel::Star));
                upstreams.push(vendor_upstream(name, vendor, key));
            }
        }
    }
    tariffs::assign(Vec::new(), &mut upstreams)?;
    let (server, plugins) = (Server::default(), PluginFolder::default());
    Ok(Config {
        file: None,
        server,
        access: Access::default(),
        plugins,
        upstreams,
        models,
        absent,
        budgets: Arc::new([]),
        ledger: Ledger::default(),
        market: None,
        secret_files: Vec::new(),
    })
}

/// Where the vendors are, by their names.
///
/// # Errors
///
/// [`ConfigError`] where the catalogue cannot be read; a test keeps it from being shipped so.
pub(super) fn addresses() -> Result<Vec<(String, Url)>, ConfigError> {
    Ok(vendors()?.into_iter().map(|(name, vendor)| (name, vendor.base_url)).collect())
}

fn vendors() -> Result<BTreeMap<String, Vendor>, ConfigError> {
    toml::from_str(VENDORS).map_err(|error| {
        let wanted = format!("the catalogue cannot be read: {}", error.message());
        ConfigError::Problems(vec![place("vendors.toml", "").problem(wanted)])
    })
}

fn echo_upstream(name: &str) -> Upstream {
    let place = place("built-in configuration", name);
    Upstream {
        name: name.into(),
        adapter: Located { value: ECHO.into(), place: place.clone() },
        adapter_config: Located { value: serde_json::Map::new().into(), place: place.clone() },
        base_url: None,
        secrets: BTreeMap::new(),
        timers: VendorTimers::default(),
        breaker: timers::default_breaker(),
        limits: Limits::default(),
        tariffs: Tariffs::default(),
        place,
    }
}

fn vendor_upstream(name: String, vendor: Vendor, key: Secret) -> Upstream {
    let place = place("vendors.toml", &name);
    Upstream {
        name,
        adapter: Located { value: vendor.adapter, place: place.clone() },
        adapter_config: Located { value: vendor.config.into(), place: place.clone() },
        base_url: Some(vendor.base_url),
        secrets: BTreeMap::from([(KEY_SLOT.into(), Located { value: key, place: place.clone() })]),
        timers: VendorTimers::default(),
        breaker: timers::default_breaker(),
        limits: Limits::default(),
        tariffs: Tariffs::default(),
        place,
    }
}

fn model(name: &str, upstreams: &[&str], target_model: TargetModel) -> Model {
    let place = place("built-in configuration", name);
    let target = |upstream: &&str| Target {
        upstream: Located { value: (*upstream).into(), place: place.clone() },
        model: target_model.clone(),
        priority: 1,
        weight: 1,
        price: None,
        bounds: Bounds::default(),
    };
    Model {
        name: Pattern::new(name),
        policy: Located { value: DEFAULT_POLICY.into(), place: place.clone() },
        policy_config: Located { value: serde_json::Map::new().into(), place: place.clone() },
        targets: upstreams.iter().map(target).collect(),
        limits: Limits::default(),
        retries: timers::DEFAULT_RETRIES,
        deadline: timers::DEFAULT_DEADLINE,
        place,
    }
}

/// A place in what is embedded.
pub(super) fn place(file: &str, key: &str) -> Place {
    Place { file: Arc::from(file), line: 0, key: key.into(), shown: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::price_list;

    fn models(environment: &Environment) -> Vec<String> {
        let config = without_file(environment).unwrap();
        config.models.iter().map(|model| model.name.as_str().to_owned()).collect()
    }

    #[test]
    fn without_keys_there_is_echo() {
        assert_eq!(models(&Environment::of(&[])), ["echo"]);
        assert_eq!(
            models(&Environment::of(&[("GROQ_API_KEY", "  ")])),
            ["echo"],
            "a blank key is a missing one"
        );
    }

    #[test]
    fn every_vendor_of_the_catalogue_is_there_with_its_key() {
        let vendors = vendors().unwrap();
        let keys: Vec<(&str, &str)> =
            vendors.values().map(|vendor| (vendor.key.as_str(), "sk-canary")).collect();
        let config = without_file(&Environment::of(&keys)).unwrap();
        assert!(vendors.len() >= 10);
        assert_eq!(config.models.len(), vendors.len() + 1);
        for (name, vendor) in &vendors {
            let upstream = config.upstreams.iter().find(|upstream| upstream.name == *name).unwrap();
            assert_eq!(upstream.base_url.as_ref(), Some(&vendor.base_url));
            assert_eq!(upstream.base_url.as_ref().unwrap().scheme(), "https", "{name}");
            let listed = price_list::rows().unwrap().into_iter().filter(|row| row.vendor == *name);
            let names: usize = listed.map(|row| row.tariffs().count()).sum();
            assert_eq!(upstream.tariffs.iter().count(), names, "{name} has its part of the price list");
        }
        assert!(!format!("{config:?}").contains("sk-canary"));
    }
}
