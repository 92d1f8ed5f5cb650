//! Puts the configuration and the plugins together; says where the configuration is wrong
//! about plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_core::codes::Surface;
use sluice_core::stats::TargetStats;
use sluice_runtime::{
    self as runtime, CallError, Interned, Kind, NameKind, Plugin, PluginSet, Refused, Serving, Setup,
    Versioned, Watched,
};

use super::{Model, Parts, Routes, Strategist, Target, Upstream};
use crate::config::{self, Config, Located, Problem, Secret};
use crate::lane::Lanes;
use crate::prepared::PlanCache;

/// What came of putting things together.
pub(crate) struct Assembled {
    /// What fits; models whose plugins are missing are left out.
    pub(crate) routes: Routes,
    pub(crate) flaws: Vec<Flaw>,
}

/// Something that does not fit.
pub(crate) struct Flaw {
    /// The plugin that was named, there or not.
    pub(crate) plugin: String,
    pub(crate) problem: Problem,
}

impl Routes {
    /// Sets every plugin up that the configuration names. What served `before` and is the same is
    /// taken over: instances, kept plans, statistics.
    pub(crate) fn assemble(
        config: &Config,
        plugins: &PluginSet,
        parts: &Parts,
        before: &Routes,
    ) -> Assembled {
        let mut assembly = Assembly { plugins, parts, before, names: names(config), flaws: Vec::new() };
        let mut upstreams = BTreeMap::new();
        for (id, upstream) in (0..).zip(&config.upstreams) {
            if let Some(made) = assembly.upstream(id, upstream) {
                upstreams.insert(upstream.name.clone(), Arc::new(made));
            }
        }
        let numbered = (0..).zip(&config.models);
        let models =
            numbered.filter_map(|(id, model)| assembly.model(id, model, &upstreams)).map(Arc::new).collect();
        let strategies = config.market.iter().flat_map(|market| &market.strategies);
        let strategists =
            strategies.filter_map(|strategy| assembly.strategist(strategy)).map(Arc::new).collect();
        let routes = Routes { models, upstreams: upstreams.into_values().collect(), strategists };
        Assembled { routes, flaws: assembly.flaws }
    }
}

struct Assembly<'a> {
    plugins: &'a PluginSet,
    parts: &'a Parts,
    before: &'a Routes,
    names: Vec<Interned>,
    flaws: Vec<Flaw>,
}

impl<'a> Assembly<'a> {
    fn upstream(&mut self, id: u32, upstream: &config::Upstream) -> Option<Upstream> {
        let serving = self.plugin(&upstream.adapter, Kind::Adapter)?;
        self.check_schema(&serving.plugin, &upstream.adapter_config);
        self.check_upstream(&serving.plugin, upstream);
        let setup = Setup { config_json: upstream.adapter_config.value.to_string(), ..Setup::default() };
        let earlier = self.before.upstream_named(&upstream.name);
        let adapter = self.versions(
            serving,
            &setup,
            &upstream.adapter_config,
            &upstream.adapter,
            earlier.map(|upstream| &upstream.adapter),
        )?;
        let same = |earlier: &&Arc<Upstream>| {
            Arc::ptr_eq(earlier.adapter.current(), adapter.current()) && earlier.base_url == upstream.base_url
        };
        let plans = earlier.filter(same).map(|earlier| Arc::clone(&earlier.plans));
        let limits = upstream.breaker;
        let same_address = |earlier: &&Arc<Upstream>| earlier.base_url == upstream.base_url;
        let lanes = earlier.filter(same_address).map(|earlier| Arc::clone(&earlier.lanes));
        let lanes = lanes
            .unwrap_or_else(|| Arc::new(Lanes::new(&upstream.name, limits, self.parts.measures.clone())));
        let secrets: BTreeMap<String, Secret> =
            upstream.secrets.iter().map(|(slot, secret)| (slot.clone(), secret.value.clone())).collect();
        if earlier.is_some_and(|earlier| earlier.secrets != secrets) {
            lanes.has_new_credential();
        }
        Some(Upstream {
            id,
            name: upstream.name.clone(),
            adapter,
            base_url: upstream.base_url.clone(),
            tariffs: upstream.tariffs.clone(),
            secrets,
            plans: plans.unwrap_or_else(|| Arc::new(PlanCache::new())),
            timers: upstream.timers,
            client: self.parts.clients.connecting_within(upstream.timers.connect),
            breaker: limits,
            limits: upstream.limits,
            lanes,
            retries: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.retries)),
        })
    }

    fn model(
        &mut self,
        id: u32,
        model: &config::Model,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Option<Model> {
        let serving = self.plugin(&model.policy, Kind::Policy)?;
        self.check_schema(&serving.plugin, &model.policy_config);
        let fixed = |(id, target): (u32, &config::Target)| {
            Some(runtime::Target { id, upstream: upstreams.get(&target.upstream.value)?.id })
        };
        let setup = Setup {
            config_json: model.policy_config.value.to_string(),
            names: self.names.clone(),
            targets: (0..).zip(&model.targets).filter_map(fixed).collect(),
        };
        let earlier = self.before.model_named(model.name.as_str());
        let policy = self.versions(
            serving,
            &setup,
            &model.policy_config,
            &model.policy,
            earlier.map(|model| &model.policy),
        )?;
        let stats = |target: &config::Target| {
            let same = |earlier: &&Arc<Target>| {
                earlier.upstream.name == target.upstream.value && earlier.model == target.model
            };
            let earlier = earlier.and_then(|model| model.targets.iter().find(same));
            earlier.map_or_else(|| Arc::new(TargetStats::default()), |earlier| Arc::clone(&earlier.stats))
        };
        let target = |target: &config::Target| {
            let upstream = Arc::clone(upstreams.get(&target.upstream.value)?);
            let lane = match &target.model {
                config::TargetModel::Named(name) => Some(upstream.lanes.lane(name, name)),
                config::TargetModel::AsAsked if model.name.stars() == 0 => {
                    Some(upstream.lanes.lane(model.name.as_str(), model.name.as_str()))
                }
                config::TargetModel::AsAsked | config::TargetModel::Star => None,
            };
            Some(Arc::new(Target {
                upstream,
                lane,
                model: target.model.clone(),
                priority: target.priority,
                weight: target.weight,
                price: target.price.clone(),
                bounds: target.bounds,
                stats: stats(target),
            }))
        };
        let targets: Vec<_> = model.targets.iter().filter_map(target).collect();
        // Missing upstreams have been reported where they are defined.
        (!targets.is_empty()).then(|| Model {
            id,
            name: model.name.clone(),
            policy,
            targets,
            limits: model.limits,
            retries: model.retries,
            deadline: model.deadline,
            measures: self.parts.measures.of_model(model.name.as_str()),
            served: earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.served)),
        })
    }

    fn strategist(&mut self, strategy: &config::Strategy) -> Option<Strategist> {
        let serving = self.plugin(&strategy.plugin, Kind::Strategy)?;
        self.check_schema(&serving.plugin, &strategy.config);
        let setup = Setup {
            config_json: strategy.config.value.to_string(),
            names: self.names.clone(),
            ..Setup::default()
        };
        let mut earlier = self.before.strategists.iter();
        let earlier = earlier.find(|earlier| earlier.name == strategy.name);
        let watched = self.versions(
            serving,
            &setup,
            &strategy.config,
            &strategy.plugin,
            earlier.map(|earlier| &earlier.strategy),
        )?;
        let (name, share, loss_per_day) = (strategy.name.clone(), strategy.share, strategy.loss_per_day);
        Some(Strategist { name, share, loss_per_day, strategy: watched })
    }

    /// The version that serves, set up for one use, and the one that would come back.
    fn versions<T: Versioned>(
        &mut self,
        serving: &Serving,
        setup: &Setup,
        config: &Located<serde_json::Value>,
        named: &Located<String>,
        earlier: Option<&Watched<T>>,
    ) -> Option<Watched<T>> {
        let earlier: Vec<&Arc<T>> = earlier.map_or_else(Vec::new, |earlier| {
            [Some(earlier.current()), earlier.before()].into_iter().flatten().collect()
        });
        let same = |plugin: &Arc<Plugin>| {
            let mut same = earlier.iter();
            let same = same.find(|earlier| Arc::ptr_eq(earlier.plugin(), plugin) && earlier.setup() == setup);
            same.map(|same| Arc::clone(same))
        };
        let current = match same(&serving.plugin) {
            Some(current) => current,
            None => {
                let made = T::set_up(&self.parts.runtime, &serving.plugin, setup.clone())?;
                let made = self.configured(made, config, named)?;
                if let Err(error) = made.rehearse() {
                    let wanted = format!("it breaks down over a test request: {error}");
                    self.flaw(&named.value, named.place.problem(wanted));
                    return None;
                }
                Arc::new(made)
            }
        };
        let Some(trial) = &serving.trial else { return Some(Watched::proven(current)) };
        let set_up = || T::set_up(&self.parts.runtime, &trial.before, setup.clone())?.ok().map(Arc::new);
        Some(match same(&trial.before).or_else(set_up) {
            Some(before) => Watched::on_probation(current, Arc::clone(&trial.books), before),
            // A configuration that the old version does not take: there is no way back for this use.
            None => Watched::proven(current),
        })
    }

    fn plugin(&mut self, id: &Located<String>, kind: Kind) -> Option<&'a Serving> {
        let known = self.plugins.get(&id.value);
        if let Some(serving) = known.filter(|serving| serving.plugin.kind() == kind) {
            return Some(serving);
        }
        let of_kind = self.plugins.iter().filter(|(_, serving)| serving.plugin.kind() == kind);
        let ids: Vec<&str> = of_kind.map(|(id, _)| id.as_str()).collect();
        let ids = if ids.is_empty() { "none".into() } else { ids.join(", ") };
        let wanted = match known {
            Some(_) => format!("{:?} is no {}; there are: {ids}", id.value, kind.name()),
            None => format!("no plugin {:?}; of kind {} there are: {ids}", id.value, kind.name()),
        };
        self.flaw(&id.value, id.place.problem(wanted));
        None
    }

    fn flaw(&mut self, plugin: &str, problem: Problem) {
        self.flaws.push(Flaw { plugin: plugin.into(), problem });
    }

    /// Slots and address as the plugin's manifest wants them.
    fn check_upstream(&mut self, plugin: &Plugin, upstream: &config::Upstream) {
        let manifest = plugin.manifest();
        if !manifest.surfaces.contains(&Surface::OpenAiChat.code()) {
            let wanted = format!(
                "{} does not speak OpenAI chat completions, the only surface there is yet",
                manifest.id
            );
            self.flaw(&manifest.id, upstream.adapter.place.problem(wanted));
        }
        if manifest.has_routes() && upstream.base_url.is_none() {
            let wanted = format!("base_url is missing; {} sends requests to it", manifest.id);
            self.flaw(&manifest.id, upstream.place.problem(wanted));
        }
        for slot in manifest.slots.iter().filter(|slot| slot.required) {
            if !upstream.secrets.contains_key(&slot.name) {
                let wanted = format!("secrets.{} is missing ({})", slot.name, slot.doc);
                self.flaw(&manifest.id, upstream.place.problem(wanted));
            }
        }
        for (slot, secret) in &upstream.secrets {
            if !manifest.slots.iter().any(|known| known.name == *slot) {
                let known: Vec<&str> = manifest.slots.iter().map(|slot| slot.name.as_str()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                let wanted = format!("{} has no such slot; it has: {known}", manifest.id);
                self.flaw(&manifest.id, secret.place.problem(wanted));
            }
            if http::HeaderValue::from_str(secret.value.reveal()).is_err() {
                let wanted = "its value has characters that no header can carry";
                self.flaw(&manifest.id, secret.place.problem(wanted));
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
                self.flaw(&manifest.id, config.place.problem(wanted));
                return;
            }
        };
        for error in validator.iter_errors(&config.value) {
            let mut place = config.place.clone();
            let at = error.instance_path().to_string().replace('/', ".");
            place.key.push_str(&at);
            let wanted = format!("plugin {} does not take this: {error}", manifest.id);
            self.flaw(&manifest.id, place.problem(wanted));
        }
    }

    fn configured<T>(
        &mut self,
        made: Result<T, CallError>,
        config: &Located<serde_json::Value>,
        named: &Located<String>,
    ) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(CallError::Refused(Refused::InvalidConfig(text))) => {
                self.flaw(&named.value, config.place.problem(text));
                None
            }
            Err(error) => {
                self.flaw(
                    &named.value,
                    named.place.problem(format!("setting the plugin up failed: {error}")),
                );
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
