//! The life of an instance and of a season: arrival, auction, calls, reward.
//!
//! One task lives each life. What the API does meanwhile it sees in the state:
//! every change there says by itself whether it still fits.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::market::call::{self, Endpoint};
use crate::market::instance::{Bidder, Exchange, Instance, Status, Verdict};
use crate::market::job::{Job, Manner};
use crate::market::money::NanoUsd;
use crate::market::running::Market;
use crate::market::state::State;

/// Who is to do an instance, after its auction.
enum Award {
    /// Nobody: it has failed.
    Nobody,
    Rival,
    Provider(Order),
}

/// What an account that won is to do.
struct Order {
    endpoint: Option<Endpoint>,
    /// It delivers in the thread and is not called.
    agent: bool,
    manner: Manner,
    reward_ends: Duration,
}

/// Lets the season's instances arrive, and lives their lives.
pub(crate) async fn season(market: Arc<Market>) {
    let season = &market.script.season;
    if season.on_scan {
        market.when(|state| state.scanned.then_some(())).await;
    }
    let start = market.now();
    let mut lives = JoinSet::new();
    for number in 0..season.instances as u64 {
        let after_us = number.saturating_mul(1_000_000) / u64::from(season.arrivals_per_second.get());
        market.sleep_until(start + Duration::from_micros(after_us)).await;
        let Some(job) = Job::drawn(&market.script, number) else { break };
        let placed = market.change(|state| state.place(job, &market.script, market.now()));
        let Some(index) = placed else { break };
        while lives.try_join_next().is_some() {} // those that have ended take no room
        lives.spawn(of_instance(Arc::clone(&market), index));
    }
    while lives.join_next().await.is_some() {}
}

/// Lives one instance's life.
pub(crate) async fn of_instance(market: Arc<Market>, index: usize) {
    let Some(closes) = market.read(|state| state.instances.get(index).map(|instance| instance.closes)) else {
        return;
    };
    let bids_awaited = market.when(|state| state.instances.get(index)?.has_bids_awaited().then_some(()));
    tokio::select! {
        () = bids_awaited => (),
        () = market.sleep_until(closes) => (),
    }
    let now = market.now();
    match market.change(|state| award(state, index, now)) {
        Award::Nobody => (),
        Award::Rival => {
            market.sleep_until(now + ms(market.script.season.rival_ms)).await;
            market.change(|state| finalize(state, index, 1_000));
        }
        Award::Provider(Order { manner: Manner::Account, endpoint, reward_ends, .. }) => {
            of_account(&market, index, endpoint, reward_ends).await;
        }
        Award::Provider(Order { manner, endpoint, agent, reward_ends }) => {
            let deadline = now + ms(market.script.requesters.call_timeout_ms);
            let (verdict, why) = match agent {
                true => delivered(&market, index, deadline).await,
                false => called(&market, index, endpoint, deadline).await,
            };
            match verdict {
                Verdict::Failed => market.change(|state| state.fail(index, &why.unwrap_or_default())),
                Verdict::Good | Verdict::Late | Verdict::Bad => {
                    rewarded(&market, index, manner, verdict, reward_ends).await;
                }
            }
        }
    }
}

/// Holds the auction.
fn award(state: &mut State, index: usize, now: Duration) -> Award {
    let Some(instance) = state.instances.get_mut(index) else { return Award::Nobody };
    instance.close(now);
    let (agent, manner, reward_ends) = (instance.is_agent(), instance.job.manner, instance.reward_ends);
    let winner = instance.won_by().map(|winner| (winner.bidder, Endpoint::of(winner)));
    let (requester, credit) = (instance.requester, instance.job.credit);
    match winner {
        None => {
            state.release(requester, credit, NanoUsd::ZERO);
            Award::Nobody
        }
        Some((Bidder::Rival(_), _)) => Award::Rival,
        Some((Bidder::Account(_), endpoint)) => {
            Award::Provider(Order { endpoint, agent, manner, reward_ends })
        }
    }
}

/// Calls the winner as often as the job says, until something is wrong.
async fn called(
    market: &Market,
    index: usize,
    endpoint: Option<Endpoint>,
    deadline: Duration,
) -> (Verdict, Option<String>) {
    let Some(endpoint) = endpoint else {
        return (Verdict::Failed, Some("the winner gave no endpoint".to_owned()));
    };
    let Some(job) = market.read(|state| state.instances.get(index).map(|instance| instance.job.clone()))
    else {
        return (Verdict::Failed, None);
    };
    let mut worst = (Verdict::Good, None);
    for number in 0..job.calls {
        let body = job.call_body(number);
        let (answer, mut row) = call::made(market, &endpoint, &body, deadline).await;
        let slow = ms(market.script.requesters.slow_ms).as_millis();
        if row.verdict == Verdict::Good && u128::from(row.took_ms) > slow {
            row.verdict = Verdict::Late;
            row.why = Some(format!("it took longer than {slow} ms"));
        }
        if row.verdict > worst.0 {
            worst = (row.verdict, row.why.clone());
        }
        let at = market.now();
        let exchange = answer.map(|answer| Exchange { request: body, response: answer.shown(), at });
        market.change(|state| state.books_call(index, row, exchange));
        if worst.0 >= Verdict::Bad {
            break;
        }
    }
    worst
}

/// Waits for what an agent delivers in the thread.
async fn delivered(market: &Market, index: usize, deadline: Duration) -> (Verdict, Option<String>) {
    let delivery = market.when(|state| state.instances.get(index)?.has_delivery().then_some(()));
    tokio::select! {
        () = delivery => (Verdict::Good, None),
        () = market.sleep_until(deadline) => (Verdict::Failed, Some("the winner delivered no message".to_owned())),
    }
}

/// Reports the reward, as this requester does.
async fn rewarded(market: &Market, index: usize, manner: Manner, verdict: Verdict, reward_ends: Duration) {
    let requesters = &market.script.requesters;
    let strict = market.read(|state| state.instances.get(index).is_some_and(|instance| instance.job.strict));
    let pays_permille = match verdict {
        Verdict::Bad | Verdict::Failed if strict => 0,
        Verdict::Late if strict => requesters.slow_pays_permille,
        Verdict::Good | Verdict::Late | Verdict::Bad | Verdict::Failed => 1_000,
    };
    let (at, pays_permille) = match manner {
        Manner::InFull => (market.now() + ms(requesters.report_ms), pays_permille),
        Manner::Late => (market.now() + ms(requesters.late_ms), pays_permille),
        // Nobody tells the market that the answer was bad: it estimates the bid.
        Manner::Never | Manner::Account => (reward_ends, 1_000),
    };
    market.sleep_until(at.min(reward_ends)).await;
    market.change(|state| finalize(state, index, pays_permille));
}

/// An instance that an account put on the market: its first prompt is asked,
/// then it has its time to report. Without a report the market estimates.
async fn of_account(market: &Market, index: usize, endpoint: Option<Endpoint>, reward_ends: Duration) {
    let is_asked = market.read(|state| {
        let instance = state.instances.get(index);
        let messages = instance.and_then(|instance| instance.job.messages.as_array());
        messages.is_some_and(|messages| !messages.is_empty())
            && instance.is_some_and(|instance| !instance.is_agent())
    });
    if is_asked {
        let deadline = market.now() + ms(market.script.requesters.call_timeout_ms);
        let (verdict, why) = called(market, index, endpoint, deadline).await;
        if verdict == Verdict::Failed {
            market.change(|state| state.fail(index, &why.unwrap_or_default()));
            return;
        }
    }
    let reported = market.when(|state| {
        let status = state.instances.get(index).map(|instance| instance.status);
        (status != Some(Status::Resolved)).then_some(())
    });
    tokio::select! {
        () = reported => (),
        () = market.sleep_until(reward_ends) => market.change(|state| {
            let idle = |instance: &Instance| instance.is_agent() && !instance.has_delivery();
            if state.instances.get(index).is_some_and(idle) {
                state.fail(index, "the winner delivered no message");
            } else {
                finalize(state, index, 1_000);
            }
        }),
    }
}

/// Pays so many thousandths of the winning bid, rounded up.
pub(crate) fn finalize(state: &mut State, index: usize, pays_permille: u32) {
    let Some(instance) = state.instances.get(index) else { return };
    let bid = instance.won_by().map(|winner| winner.amount);
    let amount = bid.and_then(|bid| bid.permille(pays_permille.into()));
    let gen_reward = amount.and_then(|amount| instance.job.percentage.whole_for(amount));
    state.finalize(index, gen_reward.unwrap_or_default());
}

fn ms(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}
