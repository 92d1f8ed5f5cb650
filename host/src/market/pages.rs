//! The market for operators: one page, and the figures of `/metrics`.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sluice_ledger::market::report::{By, Line, Which};
use url::form_urlencoded;

use super::jobs::Jobs;
use super::standing::{Standing, Told};
use crate::ledger_pages::{Desk, missing, time, wrong};
use crate::refusal::Refusal;

/// What operators look at, of the loop and of its jobs.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) standing: Arc<Standing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProposal {
    strategy: String,
    said: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPassing {
    strategy: String,
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStrategy {
    strategy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// How it stands, and the report that is asked for: by strategy, if nothing else is.
///
/// # Errors
///
/// A [`Refusal`] where there is none, or that says what of the query is not understood.
pub(crate) async fn page(view: Option<&View>, desk: &Desk<'_>, query: &str) -> Result<Value, Refusal> {
    let no_market = "The gateway was started without a [market] in its configuration.";
    let view = view.ok_or_else(|| missing("no_market", no_market))?;
    let (by, which) = report_query(query)?;
    let report = desk.act(move |store| Ok(store.store().market_report(by, which)?)).await?;
    Ok(view.standing(&report))
}

impl View {
    fn standing(&self, report: &[Line]) -> Value {
        let told = self.standing.told();
        let (open, won, bid) = self.jobs.counts();
        let exposure = self.jobs.exposure(|_| true);
        let halted = told.halted.as_ref().map(|halted| {
            json!({"reason": halted.reason.name(), "why": halted.why, "since": time(halted.since_ms)})
        });
        json!({
            "bidding": told.halted.is_none() && told.scans > 0,
            "halted": halted,
            "scans": told.scans,
            "scanned": told.scanned_ms.map(time),
            "jobs_seen": told.jobs_seen,
            "jobs_unreadable": told.jobs_unreadable,
            "open": open,
            "won": won,
            "won_bids_usd": bid.to_string(),
            "at_risk_usd": exposure.risk.to_string(),
            "strategies": strategies(&told),
            "report": report.iter().map(row).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let told = self.standing.told();
        let (open, won, _) = self.jobs.counts();
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("market_open_jobs", "Jobs that were bid on and are nobody's yet", open);
        gauge("market_won_jobs", "Jobs that are ours and have not ended", won);
        let risk = self.jobs.exposure(|_| true).risk;
        gauge("market_risk_nanodollars", "What jobs under way can cost at the worst", risk.nanos());
        let scans: Counter = Counter::default();
        scans.inc_by(told.scans);
        registry.register("market_scans", "Looks at the market's open jobs", scans);
        let halted: Family<OfReason, Gauge> = Family::default();
        if let Some(why) = &told.halted {
            halted.get_or_create(&OfReason { reason: why.reason.name() }).set(1);
        }
        registry.register("market_halted", "1 while nothing is bid, by why", halted);
        register_strategies(registry, &told);
    }
}

fn report_query(query: &str) -> Result<(By, Which), Refusal> {
    let (mut by, mut which) = (By::default(), Which::default());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let day = || value.parse().map_err(|error| wrong(format!("{name}: {error}")));
        match &*name {
            "by" => by = value.parse().map_err(|error| wrong(format!("by: {error}")))?,
            "from" => which.from = Some(day()?),
            "to" => which.to = Some(day()?),
            other => return Err(wrong(format!("{other}: wanted by, from or to"))),
        }
    }
    Ok((by, which))
}

fn register_strategies(registry: &mut Registry, told: &Told) {
    let proposals: Family<OfProposal, Counter> = Family::default();
    let passed_over: Family<OfPassing, Counter> = Family::default();
    let faults: Family<OfStrategy, Counter> = Family::default();
    for (strategy, tally) in &told.by_strategy {
        for (said, count) in &tally.proposals {
            let labels = OfProposal { strategy: strategy.clone(), said };
            proposals.get_or_create(&labels).inc_by(*count);
        }
        for (why, count) in &tally.passed_over {
            let labels = OfPassing { strategy: strategy.clone(), why };
            passed_over.get_or_create(&labels).inc_by(*count);
        }
        faults.get_or_create(&OfStrategy { strategy: strategy.clone() }).inc_by(tally.faults);
    }
    registry.register("market_proposals", "Proposals, by what the market said", proposals);
    registry.register("market_passed_over", "Jobs that were not bid on in a look, by why", passed_over);
    registry.register("market_strategy_faults", "Looks at which a strategy did not decide", faults);
}

fn strategies(told: &Told) -> Value {
    let row = |(name, tally): (&String, &super::standing::Tally)| {
        json!({
            "name": name, "proposals": tally.proposals, "passed_over": tally.passed_over,
            "faults": tally.faults,
        })
    };
    told.by_strategy.iter().map(row).collect()
}

/// One row of the report.
pub(crate) fn row(line: &Line) -> Value {
    let Line {
        day,
        strategy,
        job,
        state,
        bids,
        under_way,
        refused,
        lost,
        paid,
        unpaid,
        failed,
        bid,
        cost,
        earned,
    } = line;
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    json!({
        "day": named(day), "strategy": named(strategy), "job": named(job), "state": named(state),
        "bids": bids, "under_way": under_way, "refused": refused, "lost": lost, "paid": paid,
        "unpaid": unpaid, "failed": failed, "bid_usd": bid.to_string(), "cost_usd": cost.to_string(),
        "earned_usd": earned.to_string(), "profit_usd": line.profit(),
    })
}
