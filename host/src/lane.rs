//! What is known of one upstream's model while it is called: its breaker, a bench, and who is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_core::breaker::{Breaker, Limits, Standing, Ticket, Weight};
use sluice_core::fault::FaultClass;

use crate::measures::{LaneMeasures, Measures};

/// Models of one upstream with a lane of their own: a glob lets clients name models at will. Lanes of
/// which nothing is remembered make room; those beyond share one.
const LANES_MAX: usize = 256;

/// Since a lane was asked last: its failures, and that its breaker had opened for a time that is over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The lane of those beyond.
const OTHERS: &str = "_other";

/// How long a target rests that does not take the operator's credential.
const CREDENTIAL_BENCH: Duration = Duration::from_secs(60);

/// Requests in a row that a vendor forbids before it is the credential, and not the requests.
const FORBIDDEN_MAX: u32 = 5;

/// How long a target rests that has taken more than it was allowed.
const OVERRUN_BENCH: Duration = Duration::from_secs(600);

/// A vendor's wish to be left alone is heard up to here.
const THROTTLED_BENCH_MAX: Duration = Duration::from_secs(3600);

/// The lanes of one upstream; they outlive a reload.
pub(crate) struct Lanes {
    upstream: String,
    limits: Mutex<Limits>,
    by_model: Mutex<BTreeMap<String, Arc<Lane>>>,
    measures: Measures,
}

/// One upstream's model.
pub(crate) struct Lane {
    pub(crate) upstream: String,
    pub(crate) model: String,
    /// The model as the configuration has it: figures go by this name, clients cannot make new ones.
    pub(crate) configured: String,
    pub(crate) measures: LaneMeasures,
    /// Requests in a row that it did not allow.
    forbidden: AtomicU32,
    /// When it was asked last, in seconds since it was made.
    asked_s: AtomicU64,
    made: Instant,
    breaker: Mutex<Breaker>,
    bench: Mutex<Option<Bench>>,
}

/// A rest that is no failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bench {
    pub(crate) until: Instant,
    pub(crate) why: Why,
}

/// Why a target rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Throttled,
    Credential,
    /// It has cost more than the limit that it was sent allows.
    OverLimit,
}

/// Leave for one attempt; what is not settled says nothing about the vendor.
pub(crate) struct Pass {
    lane: Arc<Lane>,
    ticket: Option<Ticket>,
}

/// A lane as the operator sees it.
pub(crate) struct LaneView {
    pub(crate) lane: Arc<Lane>,
    pub(crate) standing: Standing,
    pub(crate) bench: Option<Bench>,
}

impl Lanes {
    pub(crate) fn new(upstream: &str, limits: Limits, measures: Measures) -> Lanes {
        Lanes {
            upstream: upstream.into(),
            limits: Mutex::new(limits),
            by_model: Mutex::new(BTreeMap::new()),
            measures,
        }
    }

    /// A reload may have changed them.
    pub(crate) fn set_limits(&self, limits: Limits) {
        *lock(&self.limits) = limits;
        for lane in lock(&self.by_model).values() {
            lock(&lane.breaker).set_limits(limits);
        }
    }

    /// `configured`: a name, or the pattern that `model` matches.
    pub(crate) fn lane(&self, model: &str, configured: &str) -> Arc<Lane> {
        let mut lanes = lock(&self.by_model);
        if let Some(lane) = lanes.get(model) {
            return Arc::clone(lane);
        }
        if lanes.len() >= LANES_MAX {
            let now = Instant::now();
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || lane.remembers(now));
        }
        let (model, configured) =
            if lanes.len() < LANES_MAX { (model, configured) } else { (OTHERS, OTHERS) };
        let make = || {
            let limits = *lock(&self.limits);
            Arc::new(Lane::new(&self.upstream, model, configured, limits, &self.measures))
        };
        Arc::clone(lanes.entry(model.to_owned()).or_insert_with(make))
    }

    /// Another credential is there: what rests for want of a good one may be asked again.
    pub(crate) fn has_new_credential(&self) {
        for lane in lock(&self.by_model).values() {
            lock(&lane.bench).take_if(|bench| bench.why == Why::Credential);
        }
    }

    pub(crate) fn views(&self, now: Instant) -> Vec<LaneView> {
        let lanes: Vec<Arc<Lane>> = lock(&self.by_model).values().map(Arc::clone).collect();
        let view = |lane: Arc<Lane>| {
            let standing = lock(&lane.breaker).standing();
            let bench = lane.bench(now);
            LaneView { lane, standing, bench }
        };
        lanes.into_iter().map(view).collect()
    }

    /// Closes the breaker of one model, and ends its rest; false if there is no such lane.
    pub(crate) fn reset(&self, model: &str) -> bool {
        let lane = lock(&self.by_model).get(model).map(Arc::clone);
        lane.is_some_and(|lane| {
            lock(&lane.breaker).reset();
            *lock(&lane.bench) = None;
            tracing::info!(upstream = lane.upstream, model = lane.model, "breaker reset by the operator");
            true
        })
    }
}

impl Lane {
    fn new(upstream: &str, model: &str, configured: &str, limits: Limits, measures: &Measures) -> Lane {
        Lane {
            upstream: upstream.into(),
            model: model.into(),
            configured: configured.into(),
            measures: measures.of_lane(upstream, configured),
            forbidden: AtomicU32::new(0),
            asked_s: AtomicU64::new(0),
            made: Instant::now(),
            breaker: Mutex::new(Breaker::new(limits)),
            bench: Mutex::new(None),
        }
    }

    /// Closed, half-open with a place for a probe, or not at all.
    pub(crate) fn standing(&self, now: Instant) -> Option<Standing> {
        let breaker = lock(&self.breaker);
        breaker.admits(now).then(|| breaker.standing())
    }

    /// When the first probe may go; none while calls pass.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        match lock(&self.breaker).standing() {
            Standing::Open { until, .. } => Some(until),
            Standing::Closed | Standing::HalfOpen { .. } => None,
        }
    }

    pub(crate) fn bench(&self, now: Instant) -> Option<Bench> {
        let mut bench = lock(&self.bench);
        if bench.is_some_and(|bench| bench.until <= now) {
            *bench = None;
        }
        *bench
    }

    /// Counts a request that the vendor did not allow; whether it allows none any more.
    pub(crate) fn is_shut(&self) -> bool {
        self.forbidden.fetch_add(1, Ordering::Relaxed) + 1 >= FORBIDDEN_MAX
    }

    /// Whether anything would be lost with it. That a model failed once is forgotten in time.
    fn remembers(&self, now: Instant) -> bool {
        let asked = self.made + Duration::from_secs(self.asked_s.load(Ordering::Relaxed));
        let breaker = lock(&self.breaker);
        let forgotten = breaker.admits(now) && now.saturating_duration_since(asked) > FORGOTTEN_AFTER;
        let spotless = breaker.is_spotless();
        drop(breaker);
        !(spotless || forgotten) || self.bench(now).is_some()
    }

    /// Lets the lane rest after a fault that is no failure of the vendor's; of two wishes the longer
    /// one counts.
    pub(crate) fn rest(&self, class: FaultClass, retry_after: Option<Duration>, now: Instant) {
        let wish = retry_after.unwrap_or_default().min(THROTTLED_BENCH_MAX);
        match class {
            FaultClass::Throttled => self.rest_for(wish, Why::Throttled, now),
            FaultClass::Credential => self.rest_for(CREDENTIAL_BENCH, Why::Credential, now),
            FaultClass::Caller | FaultClass::Policy | FaultClass::Provider | FaultClass::Plugin => {}
        }
    }

    /// Lets the lane rest after it has taken more than was held for it.
    pub(crate) fn overran(&self, now: Instant) {
        self.rest_for(OVERRUN_BENCH, Why::OverLimit, now);
    }

    fn rest_for(&self, rest: Duration, why: Why, now: Instant) {
        let (until, mut bench) = (now + rest, lock(&self.bench));
        if rest.is_zero() || bench.is_some_and(|bench| bench.until >= until) {
            return;
        }
        if bench.replace(Bench { until, why }).is_none_or(|before| before.until <= now) {
            let (upstream, model, reason) = (&self.upstream, &self.model, why.name());
            tracing::warn!(upstream, model, reason, ?rest, "rests; others are asked first");
        }
    }

    pub(crate) fn ask(self: &Arc<Lane>, now: Instant) -> Option<Pass> {
        let ticket = lock(&self.breaker).ask(now)?;
        self.asked_s.store(now.saturating_duration_since(self.made).as_secs(), Ordering::Relaxed);
        Some(Pass { lane: Arc::clone(self), ticket: Some(ticket) })
    }
}

impl Why {
    /// As the operator sees it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Why::Throttled => FaultClass::Throttled.name(),
            Why::Credential => FaultClass::Credential.name(),
            Why::OverLimit => "over_limit",
        }
    }
}

impl Pass {
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Content has come: a probe has shown what it was to show.
    pub(crate) fn begun(&mut self) {
        let Some(ticket) = &mut self.ticket else { return };
        let changed = lock(&self.lane.breaker).begun(ticket);
        self.tell(changed);
    }

    /// How the attempt went; once.
    pub(crate) fn settle(&mut self, weight: Weight, code: &'static str) {
        let Some(ticket) = self.ticket.take() else { return };
        if weight == Weight::Good {
            self.lane.forbidden.store(0, Ordering::Relaxed);
        }
        let changed = lock(&self.lane.breaker).settle(ticket, weight, code, Instant::now());
        self.tell(changed);
    }

    fn tell(&self, changed: Option<Standing>) {
        let (upstream, model) = (&self.lane.upstream, &self.lane.model);
        match changed {
            Some(Standing::Open { why, .. }) => {
                tracing::warn!(upstream, model, reason = %why, "breaker open");
            }
            Some(Standing::Closed) => tracing::info!(upstream, model, "breaker closed"),
            Some(Standing::HalfOpen { .. }) | None => {}
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.settle(Weight::Neither, "none");
    }
}

/// What a panic leaves behind is as good as it was: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
