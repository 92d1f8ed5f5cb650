//! The sections of `sluice.toml`, each checked as it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_core::pattern::Pattern;
use sluice_ledger::seal::master::MasterKey;
use toml::de::DeTable;

use super::reader::{Document, Found, Table};
use super::{
    Access, Budget, Config, ConfigError, Environment, Ledger, Located, Model, Place, PluginFolder, Secret,
    Server, Target, TargetModel, Tariffs, Upstream, VendorTimers,
};
use super::{access, budgets, ledger, limits, market, price, size, tariffs, timers};

/// Policy of a model that names none.
pub(super) const DEFAULT_POLICY: &str = "priority";

/// Targets of one model at most: a policy looks at all of them on each request.
const TARGETS_MAX: usize = 64;

/// Worker threads at most.
const WORKERS_MAX: u64 = 1024;

/// Room for the bodies of requests: at least for one, and no more than any machine has.
const BODIES_BYTES_RANGE: RangeInclusive<u64> = 32 << 20..=16 << 40;

/// Reads a whole file.
pub(super) fn read(file: &Path, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
    let document = Document::new(file, text);
    let entries = match DeTable::parse(text) {
        Ok(entries) => entries,
        Err(error) => return Err(ConfigError::Problems(vec![document.syntax(&error)])),
    };
    let (server, access, plugins, upstreams, models, budgets, ledger, market) = {
        let root = document.root(entries.get_ref());
        let mut access = access::access(&root, environment);
        let server = root.table("server");
        let server = server.map_or_else(Server::default, |table| server_of(table, &mut access, environment));
        let plugins = root.table("plugins").map_or_else(PluginFolder::default, plugins);
        let mut upstreams =
            root.table("upstreams").map_or_else(Vec::new, |table| upstreams(&table, environment));
        let prices = tariffs::read(&root, &upstreams);
        tariffs::assign(prices, &mut upstreams)?;
        let models = models(&root);
        let budgets: Arc<[Budget]> = budgets::budgets(&root, &models).into();
        let ledger = root.table("ledger").map_or_else(Ledger::default, |table| ledger::ledger(&table));
        let market = root.table("market");
        let market = market.and_then(|table| market::market(&table, &models, &budgets, environment));
        check_names(&root, &upstreams, &models);
        root.not_built("listen", "further listeners");
        root.finish();
        (server, access, plugins, upstreams, models, budgets, ledger, market)
    };
    let (problems, secret_files) = document.into_findings();
    if !problems.is_empty() {
        return Err(ConfigError::Problems(problems));
    }
    let (file, absent) = (Some(file.into()), Vec::new());
    Ok(Config {
        file,
        server,
        access,
        plugins,
        upstreams,
        models,
        absent,
        budgets,
        ledger,
        market,
        secret_files,
    })
}

fn server_of(table: Table<'_>, access: &mut Access, environment: &Environment) -> Server {
    let mut server = Server::default();
    if let Some(found) = table.get("listen") {
        server.listen = found.text().and_then(|text| listen(&found, text, access)).unwrap_or(server.listen);
    }
    if let Some(found) = table.get("workers") {
        server.workers = found.integer(1..=WORKERS_MAX).and_then(|count| usize::try_from(count).ok());
    }
    if let Some(found) = table.get("data_dir") {
        server.data_dir = path(&found).unwrap_or(server.data_dir);
    }
    if let Some(found) = table.get("bodies_max") {
        let bytes = size::bytes(&found, BODIES_BYTES_RANGE);
        server.bodies_bytes_max = bytes.unwrap_or(server.bodies_bytes_max);
    }
    server.master_key = table.get("master_key").and_then(|found| master_key(found.hidden(), environment));
    if let Some(found) = table.get("trusted_proxies") {
        access.trusted_proxies = access::networks(&found);
    }
    if let Some(timeouts) = table.table("timeouts") {
        server.timers = timers::client_timers(&timeouts);
    }
    if let Some(drain) = table.table("drain") {
        server.drain = timers::drain(&drain);
    }
    table.finish();
    server
}

fn master_key(found: Found<'_>, environment: &Environment) -> Option<MasterKey> {
    match MasterKey::from_hex(secret(&found, environment)?.reveal()) {
        Ok(key) => Some(key),
        Err(error) => found.refuse(error.to_string()),
    }
}

fn listen(found: &Found<'_>, text: &str, access: &Access) -> Option<SocketAddr> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return found.refuse("wanted an address and a port such as \"127.0.0.1:8080\"");
    };
    if !address.ip().is_loopback() && !access.keys_required {
        return found.refuse(
            "wanted a loopback address: no client key is required, so a public one would serve anyone ([keys] required = true)",
        );
    }
    Some(address)
}

fn plugins(table: Table<'_>) -> PluginFolder {
    let mut plugins = PluginFolder::default();
    if let Some(found) = table.get("dir") {
        plugins.dir = path(&found).unwrap_or(plugins.dir);
    }
    if let Some(found) = table.get("file_events") {
        plugins.file_events = found.truth().unwrap_or(plugins.file_events);
    }
    table.finish();
    plugins
}

fn path(found: &Found<'_>) -> Option<PathBuf> {
    match found.text()? {
        "" => found.refuse("wanted a path"),
        text => Some(text.into()),
    }
}

fn upstreams(table: &Table<'_>, environment: &Environment) -> Vec<Upstream> {
    let named = table.named().into_iter();
    named.filter_map(|(name, found)| upstream(name, &found.table()?, environment)).collect()
}

fn upstream(name: String, table: &Table<'_>, environment: &Environment) -> Option<Upstream> {
    let adapter = table.require("adapter", "the id of an adapter plugin, such as \"openai\"");
    let adapter =
        adapter.and_then(|found| Some(Located { value: found.text()?.to_owned(), place: found.place }));
    let base_url = table.get("base_url").and_then(base_url);
    // Hidden: who writes the secret itself in the table's place is not to read it in a message.
    let slots = table.get("secrets").and_then(|found| found.hidden().table());
    let secrets = slots.map_or_else(BTreeMap::new, |slots| secrets(&slots, environment));
    let adapter_config = plugin_config(table, "adapter_config");
    let limits = limits::limits(table);
    let timers =
        table.table("timeouts").map_or_else(VendorTimers::default, |table| timers::vendor_timers(&table));
    let breaker =
        table.table("breaker").map_or_else(timers::default_breaker, |table| timers::breaker(&table));
    let place = table.place();
    table.finish();
    Some(Upstream {
        name,
        adapter: adapter?,
        adapter_config,
        base_url,
        secrets,
        timers,
        breaker,
        limits,
        tariffs: Tariffs::default(),
        place,
    })
}

pub(super) fn base_url(found: Found<'_>) -> Option<url::Url> {
    // A user or a query may be a secret.
    let may_hold_secret = found.value.as_str().is_none_or(|text| text.contains(['@', '?', '#']));
    let found = if may_hold_secret { found.hidden() } else { found };
    let text = found.text()?;
    let wanted =
        "wanted an http or https URL such as \"https://api.example.com/v1\", without user, query or fragment";
    let url = url::Url::parse(text).ok().filter(|url| {
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        matches!(url.scheme(), "http" | "https") && url.has_host() && bare && url.password().is_none()
    });
    match url {
        Some(url) => Some(url),
        None => found.refuse(wanted),
    }
}

fn secrets(table: &Table<'_>, environment: &Environment) -> BTreeMap<String, Located<Secret>> {
    let read = |(slot, found): (String, Found<'_>)| {
        let secret = secret(&found, environment)?;
        Some((slot, Located { value: secret, place: found.hidden().place }))
    };
    table.named().into_iter().filter_map(read).collect()
}

pub(super) fn secret(found: &Found<'_>, environment: &Environment) -> Option<Secret> {
    let text = found.value.as_str().unwrap_or_default();
    // Only a reference is repeated in a message: anything else may be the secret itself.
    let refuse = |wanted: String| {
        let mut place = found.place.clone();
        place.shown = None;
        found.report(place.problem(wanted));
        None
    };
    match text.split_once(':') {
        Some(("env", name)) => match environment.get(name).and_then(Secret::new) {
            Some(secret) => Some(secret),
            None => refuse(format!("the variable {name} is not set, neither in the environment nor in .env")),
        },
        Some(("file", file)) => match found.read_secret(file.as_ref()).map(|text| Secret::new(&text)) {
            Ok(Some(secret)) => Some(secret),
            Ok(None) => refuse(format!("the file {file} is blank")),
            Err(error) => refuse(format!("the file {file} cannot be read: {error}")),
        },
        Some(("store", _)) => {
            refuse("the secret store is not built yet; wanted \"env:NAME\" or \"file:PATH\"".into())
        }
        _ => refuse("wanted \"env:NAME\" or \"file:PATH\": a secret does not belong into this file".into()),
    }
}

fn models(root: &Table<'_>) -> Vec<Model> {
    let tables = root.get("models").map_or_else(Vec::new, |found| found.tables());
    tables.into_iter().filter_map(|table| model(&table)).collect()
}

fn model(table: &Table<'_>) -> Option<Model> {
    let place = table.place();
    let name = table.require("name", "the name that clients ask for, or a glob such as \"gpt-*\"");
    let name = name.and_then(|found| match found.text()? {
        "" => found.refuse("wanted a name"),
        text => Some(Pattern::new(text)),
    });
    let policy = match table.get("policy") {
        Some(found) => {
            found.text().map(|text| Located { value: text.to_owned(), place: found.place.clone() })
        }
        None => Some(Located { value: DEFAULT_POLICY.into(), place: place.clone() }),
    };
    let policy_config = plugin_config(table, "policy_config");
    let targets = table.require("targets", "an array of targets, each with an upstream");
    let targets = targets.map(|found| targets_of(&found, name.as_ref()));
    let (retries, deadline) = timers::of_model(table);
    let limits = limits::limits(table);
    table.not_built("on_exhaust", "downgrading");
    table.finish();
    let (name, policy, targets) = (name?, policy?, targets?);
    Some(Model { name, policy, policy_config, targets, limits, retries, deadline, place })
}

fn targets_of(found: &Found<'_>, name: Option<&Pattern>) -> Vec<Target> {
    let tables = found.tables();
    if tables.is_empty() || tables.len() > TARGETS_MAX {
        found.refuse::<()>(format!("wanted 1 to {TARGETS_MAX} targets"));
    }
    tables.into_iter().filter_map(|table| target(&table, name)).collect()
}

fn target(table: &Table<'_>, name: Option<&Pattern>) -> Option<Target> {
    let upstream = table.require("upstream", "the name of a table under [upstreams]");
    let upstream =
        upstream.and_then(|found| Some(Located { value: found.text()?.to_owned(), place: found.place }));
    let model = match table.get("model") {
        None => Some(TargetModel::AsAsked),
        Some(found) => found.text().and_then(|text| target_model(&found, text, name)),
    };
    let small = |key| table.get(key).and_then(|found| found.integer(0..=u64::from(u16::MAX)));
    let small = |key| small(key).and_then(|number| u16::try_from(number).ok()).unwrap_or(1);
    let (priority, weight) = (small("priority"), small("weight"));
    let price = table.table("price").and_then(|table| price::price(&table));
    let bounds = price::bounds(table);
    table.finish();
    Some(Target { upstream: upstream?, model: model?, priority, weight, price, bounds })
}

fn target_model(found: &Found<'_>, text: &str, name: Option<&Pattern>) -> Option<TargetModel> {
    match text {
        "" => found.refuse(
            "wanted the upstream's name for the model; leave the key out to pass on what was asked for",
        ),
        "*" if name.is_none_or(|name| name.stars() == 1) => Some(TargetModel::Star),
        "*" => found
            .refuse("stands for what the * of the model's name stood for: wanted a name with exactly one *"),
        text => Some(TargetModel::Named(text.into())),
    }
}

/// A plugin's own configuration; an empty object where nothing is said.
pub(super) fn plugin_config(table: &Table<'_>, key: &'static str) -> Located<serde_json::Value> {
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    match table.get(key) {
        None => {
            let mut place: Place = table.place();
            place.key = format!("{}.{key}", place.key);
            Located { value: empty(), place }
        }
        Some(found) => {
            if found.value.as_table().is_none() {
                found.refuse::<()>("wanted a table");
            }
            Located { value: found.json().unwrap_or_else(empty), place: found.place }
        }
    }
}

/// Names that refer to each other within the file.
fn check_names(root: &Table<'_>, upstreams: &[Upstream], models: &[Model]) {
    let mut seen = BTreeSet::new();
    for model in models {
        if !seen.insert(model.name.as_str()) {
            root.report(
                model.place.problem(format!("a model named {:?} is there already", model.name.as_str())),
            );
        }
        for target in &model.targets {
            let upstream = &target.upstream;
            if !upstreams.iter().any(|known| known.name == upstream.value) {
                root.report(upstream.place.problem(tariffs::no_such_upstream(upstreams)));
            }
        }
    }
}
