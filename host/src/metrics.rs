//! The page that Prometheus reads, made from the snapshot and the counters at each scrape.
//!
//! Label values come from closed sets and from the configuration, or are ids of plugins that serve.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use sluice_runtime::{Transition, Transitions};

use sluice_ledger::figures::Figures;

use crate::market;
use crate::measures::Measures;
use crate::money::Money;
use crate::snapshot::Snapshot;
use crate::workers::Workers;

/// OpenMetrics, which Prometheus asks for.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTransition {
    transition: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFunction {
    plugin: String,
    function: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFault {
    plugin: String,
    fault: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBreaker {
    upstream: String,
    gen_ai_request_model: String,
    state: &'static str,
}

#[derive(Default)]
struct PluginFamilies {
    calls: Family<OfFunction, Counter>,
    seconds: Family<OfFunction, Counter<f64, AtomicU64>>,
    faults: Family<OfFault, Counter>,
}

/// All metrics, as text.
pub(crate) fn text(
    snapshot: &Snapshot,
    transitions: &Transitions,
    measures: &Measures,
    money: Option<&Money>,
    market: Option<&market::View>,
    workers: &Workers,
) -> String {
    let mut all = Registry::default();
    measures.register(&mut all);
    let registry = all.sub_registry_with_prefix("sluice");
    let generation: Gauge = Gauge::default();
    generation.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
    registry.register("generation", "Generation of the snapshot that serves", generation);
    let tasks: Gauge = Gauge::default();
    tasks.set(i64::try_from(workers.tasks()).unwrap_or(i64::MAX));
    registry.register(
        "tasks",
        "Tasks of the threads that serve: one per connection and per stream under way, and a few more",
        tasks,
    );
    register_transitions(registry, transitions);
    let plugins = PluginFamilies::default();
    plugins.fill(snapshot);
    plugins.register(registry);
    register_breakers(registry, snapshot);
    if let Some(money) = money {
        register_spending(registry, money);
    }
    if let Some(market) = market {
        market.register(registry);
    }
    let mut text = String::new();
    if encode(&mut text, &all).is_err() {
        tracing::error!("the metrics cannot be written");
    }
    text
}

fn register_spending(registry: &mut Registry, money: &Money) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let Figures { holds, held, leased, settled, overrun, accounts, in_doubt, waiting, trouble } =
        money.spending.figures();
    let disputed = money.disputed.load(Ordering::Relaxed);
    gauge("spending_holds", "Attempts for which money is held", holds);
    gauge("spending_held_nanodollars", "Held, once for each account that an attempt draws on", held.nanos());
    gauge(
        "spending_leased_nanodollars",
        "Leased from the store for holds, what is held among it",
        leased.nanos(),
    );
    gauge(
        "spending_settled_nanodollars",
        "What attempts under a budget have cost since the start",
        settled.nanos(),
    );
    gauge("spending_overrun_nanodollars", "What they have cost beyond what was held", overrun.nanos());
    gauge(
        "spending_disputed",
        "Attempts for which less usage was reported than the gateway has seen",
        disputed,
    );
    let unpriced = money.unpriced.load(Ordering::Relaxed);
    gauge("spending_unpriced", "Attempts without a price that a budget let pass", unpriced);
    gauge("spending_in_doubt", "Holds that a process left behind, which count as spent", in_doubt.count);
    gauge("spending_in_doubt_nanodollars", "What was held for them", in_doubt.amount.nanos());
    gauge("ledger_accounts", "Accounts in memory", accounts as u64);
    gauge("ledger_waiting", "Calls that the store does not have yet", waiting as u64);
    gauge("ledger_trouble", "1 while the ledger cannot be written", trouble.is_some().into());
}

fn register_breakers(registry: &mut Registry, snapshot: &Snapshot) {
    let family: Family<OfBreaker, Gauge> = Family::default();
    for upstream in snapshot.routes.upstreams() {
        for view in upstream.lanes.views(Instant::now()) {
            for state in ["closed", "open", "half_open"] {
                let labels = OfBreaker {
                    upstream: view.lane.upstream.clone(),
                    gen_ai_request_model: view.lane.configured.clone(),
                    state,
                };
                family.get_or_create(&labels).inc_by((view.standing.name() == state).into());
            }
        }
    }
    let help = "Breakers in this state; a pattern has one for each model that was asked for by it";
    registry.register("breaker_state", help, family);
}

fn register_transitions(registry: &mut Registry, transitions: &Transitions) {
    let family: Family<OfTransition, Counter> = Family::default();
    for transition in Transition::ALL {
        let counter = family.get_or_create(&OfTransition { transition: transition.name() });
        counter.inc_by(transitions.counted(*transition));
    }
    registry.register("transitions", "What happened to plugins and the configuration", family);
}

impl PluginFamilies {
    fn fill(&self, snapshot: &Snapshot) {
        for (id, serving) in snapshot.plugins.iter() {
            let counters = serving.plugin.counters();
            for stats in counters.calls() {
                let labels = OfFunction { plugin: id.clone(), function: stats.function };
                self.calls.get_or_create(&labels).inc_by(stats.calls);
                self.seconds.get_or_create(&labels).inc_by(stats.time.as_secs_f64());
            }
            for (fault, count) in counters.faults() {
                self.faults.get_or_create(&OfFault { plugin: id.clone(), fault }).inc_by(count);
            }
        }
    }

    fn register(self, registry: &mut Registry) {
        registry.register("plugin_calls", "Calls of plugins that serve", self.calls);
        let help = "Time spent in calls of plugins that serve";
        registry.register_with_unit("plugin_call", help, Unit::Seconds, self.seconds);
        registry.register("plugin_faults", "Faults of plugins that serve", self.faults);
    }
}
