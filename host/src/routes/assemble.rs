//! Puts the configuration and the plugins together; says where the configuration is wrong
//! about plugins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sluice_core::codes::Surface;
use sluice_core::stats::TargetStats;
use sluice_runtime::{
    self as runtime, Adapter, CallError, Interned, Kind, NameKind, Plugin, Policy, Refused, Runtime, Setup,
};

use super::{Model, Routes, Target, Upstream};
use crate::config::{self, Config, ConfigError, Located, Problem};
use crate::plugins::Plugins;
use crate::prepared::PlanCache;

impl Routes {
    /// Sets every plugin up that the configuration names. Without a file, models whose
    /// plugins are not there are left out: nobody asked for them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found.
    pub(crate) fn assemble(
        config: &Config,
        plugins: &Plugins,
        runtime: &Runtime,
    ) -> Result<Routes, ConfigError> {
        let mut assembly = Assembly { plugins, runtime, names: names(config), problems: Vec::new() };
        let mut upstreams = BTreeMap::new();
        for (id, upstream) in (0..).zip(&config.upstreams) {
            if let Some(made) = assembly.upstream(id, upstream) {
                upstreams.insert(upstream.name.clone(), Arc::new(made));
            }
        }
        let numbered = (0..).zip(&config.models);
        let models =
            numbered.filter_map(|(id, model)| assembly.model(id, model, &upstreams)).map(Arc::new).collect();
        if config.file.is_some() && !assembly.problems.is_empty() {
            return Err(ConfigError::Problems(assembly.problems));
        }
        for problem in &assembly.problems {
            tracing::warn!(%problem, "left out of the built-in configuration");
        }
        Ok(Routes { models, upstreams: upstreams.into_values().collect() })
    }
}

struct Assembly<'a> {
    plugins: &'a Plugins,
    runtime: &'a Runtime,
    names: Vec<Interned>,
    problems: Vec<Problem>,
}

impl Assembly<'_> {
    fn upstream(&mut self, id: u32, upstream: &config::Upstream) -> Option<Upstream> {
        let plugin = self.plugin(&upstream.adapter, Kind::Adapter)?;
        self.check_schema(&plugin, &upstream.adapter_config);
        self.check_upstream(&plugin, upstream);
        let setup = Setup { config_json: upstream.adapter_config.value.to_string(), ..Setup::default() };
        let adapter = Adapter::new(self.runtime, &plugin, setup)?;
        Some(Upstream {
            id,
            name: upstream.name.clone(),
            adapter: self.configured(adapter, &upstream.adapter_config)?,
            base_url: upstream.base_url.clone(),
            secrets: upstream
                .secrets
                .iter()
                .map(|(slot, secret)| (slot.clone(), secret.value.clone()))
                .collect(),
            plans: PlanCache::new(),
        })
    }

    fn model(
        &mut self,
        id: u32,
        model: &config::Model,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Option<Model> {
        let plugin = self.plugin(&model.policy, Kind::Policy)?;
        self.check_schema(&plugin, &model.policy_config);
        let fixed = |(id, target): (u32, &config::Target)| {
            Some(runtime::Target { id, upstream: upstreams.get(&target.upstream.value)?.id })
        };
        let setup = Setup {
            config_json: model.policy_config.value.to_string(),
            names: self.names.clone(),
            targets: (0..).zip(&model.targets).filter_map(fixed).collect(),
        };
        let policy = Policy::new(self.runtime, &plugin, setup)?;
        let policy = self.configured(policy, &model.policy_config)?;
        let target = |target: &config::Target| {
            Some(Arc::new(Target {
                upstream: Arc::clone(upstreams.get(&target.upstream.value)?),
                model: target.model.clone(),
                priority: target.priority,
                weight: target.weight,
                price: target.price,
                stats: Arc::new(TargetStats::default()),
            }))
        };
        let targets: Vec<_> = model.targets.iter().filter_map(target).collect();
        // Missing upstreams have been reported where they are defined.
        (!targets.is_empty()).then(|| Model {
            id,
            name: model.name.clone(),
            policy,
            targets,
            served: AtomicU64::new(0),
        })
    }

    fn plugin(&mut self, id: &Located<String>, kind: Kind) -> Option<Arc<Plugin>> {
        let known = self.plugins.get(&id.value);
        if let Some(plugin) = known.filter(|plugin| plugin.kind() == kind) {
            return Some(Arc::clone(plugin));
        }
        let of_kind = self.plugins.all().filter(|plugin| plugin.kind() == kind);
        let ids: Vec<&str> = of_kind.map(|plugin| plugin.manifest().id.as_str()).collect();
        let ids = if ids.is_empty() { "none".into() } else { ids.join(", ") };
        let wanted = match known {
            Some(_) => format!("{:?} is no {}; there are: {ids}", id.value, kind.name()),
            None => format!("no plugin {:?}; of kind {} there are: {ids}", id.value, kind.name()),
        };
        self.problems.push(id.place.problem(wanted));
        None
    }

    /// Slots and address as the plugin's manifest wants them.
    fn check_upstream(&mut self, plugin: &Plugin, upstream: &config::Upstream) {
        let manifest = plugin.manifest();
        if !manifest.surfaces.contains(&Surface::OpenAiChat.code()) {
            let wanted = format!(
                "{} does not speak OpenAI chat completions, the only surface there is yet",
                manifest.id
            );
            self.problems.push(upstream.adapter.place.problem(wanted));
        }
        if manifest.has_routes() && upstream.base_url.is_none() {
            let place = &upstream.place;
            self.problems
                .push(place.problem(format!("base_url is missing; {} sends requests to it", manifest.id)));
        }
        for slot in manifest.slots.iter().filter(|slot| slot.required) {
            if !upstream.secrets.contains_key(&slot.name) {
                let wanted = format!("secrets.{} is missing ({})", slot.name, slot.doc);
                self.problems.push(upstream.place.problem(wanted));
            }
        }
        for (slot, secret) in &upstream.secrets {
            if !manifest.slots.iter().any(|known| known.name == *slot) {
                let known: Vec<&str> = manifest.slots.iter().map(|slot| slot.name.as_str()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                self.problems
                    .push(secret.place.problem(format!("{} has no such slot; it has: {known}", manifest.id)));
            }
            if http::HeaderValue::from_str(secret.value.reveal()).is_err() {
                self.problems.push(secret.place.problem("its value has characters that no header can carry"));
            }
        }
    }

    fn check_schema(&mut self, plugin: &Plugin, config: &Located<serde_json::Value>) {
        let manifest = plugin.manifest();
        let schema = match manifest.config_schema.as_str() {
            "" => serde_json::json!({"type": "object", "additionalProperties": false}),
            text => serde_json::from_str(text).unwrap_or_default(),
        };
        let validator = match jsonschema::validator_for(&schema) {
            Ok(validator) => validator,
            Err(error) => {
                let wanted = format!("the schema of plugin {} is not usable: {error}", manifest.id);
                self.problems.push(config.place.problem(wanted));
                return;
            }
        };
        for error in validator.iter_errors(&config.value) {
            let mut place = config.place.clone();
            let at = error.instance_path().to_string().replace('/', ".");
            place.key.push_str(&at);
            self.problems.push(place.problem(format!("plugin {} does not take this: {error}", manifest.id)));
        }
    }

    fn configured<T>(
        &mut self,
        made: Result<T, CallError>,
        config: &Located<serde_json::Value>,
    ) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(CallError::Refused(Refused::InvalidConfig(text))) => {
                self.problems.push(config.place.problem(text));
                None
            }
            Err(error) => {
                self.problems.push(config.place.problem(format!("setting the plugin up failed: {error}")));
                None
            }
        }
    }
}

/// The names behind the numbers that policies see.
fn names(config: &Config) -> Vec<Interned> {
    let models = (0..).zip(&config.models).map(|(id, model)| (NameKind::Model, id, model.name.as_str()));
    let upstreams =
        (0..).zip(&config.upstreams).map(|(id, upstream)| (NameKind::Upstream, id, upstream.name.as_str()));
    models.chain(upstreams).map(|(kind, id, name)| Interned { kind, id, name: name.into() }).collect()
}
