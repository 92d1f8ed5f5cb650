//! Which accounts an attempt draws on, by which time, and the ledger behind them.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_core::books::{Cap, Mode};
use sluice_core::clock::{Clock, STEP_SECONDS_MAX, Start, UnixSeconds};
use sluice_core::money::NanoUsd;
use sluice_core::window::Window;
use sluice_ledger::budget::{self, AccountKey, Drawn, IN_TOTAL, OF_THE_KEY, Scope, Scopes};
use sluice_ledger::market;
use sluice_ledger::recovery::{Found, RecoveryError};
use sluice_ledger::rules::Rules;
use sluice_ledger::spending::Spending;
use smallvec::SmallVec;

use crate::caller::Caller;
use crate::config::{Budget, MissingRun, Per, Unpriced};
use crate::drained::Drains;
use crate::refusal::Refusal;
use crate::snapshot::Current;

/// A gateway that was off for longer has missed a whole month, the longest window: 31 days.
const AWAY_SECONDS_MAX: u64 = 31 * 24 * 3600;

/// Of one attempt; few have more.
pub(crate) type Accounts = SmallVec<[Drawn; 4]>;

/// The ledger, and the time of budgets.
pub(crate) struct Money {
    pub(crate) spending: Arc<Spending>,
    /// Paid answers that nobody waits for.
    pub(crate) drains: Drains,
    /// Attempts for which less usage was reported than was seen.
    pub(crate) disputed: AtomicU64,
    /// Attempts that a budget let pass though nobody can tell what they cost.
    pub(crate) unpriced: AtomicU64,
    clock: Mutex<Clock>,
}

/// What both clocks of the machine show at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: UnixSeconds,
    /// Since the machine was started; goes on while it sleeps.
    mono: Duration,
}

/// What an attempt draws on.
pub(crate) struct Draws {
    pub(crate) accounts: Accounts,
    /// One of them refuses; the others only count.
    pub(crate) enforces: bool,
    /// One that refuses does not let calls pass whose cost nobody can tell.
    pub(crate) wants_price: bool,
}

impl Money {
    /// Opens the ledger in this folder, and says what it has found there.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub(crate) fn open(folder: &Path, at: Moment) -> Result<Money, RecoveryError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let (spending, found) = Spending::open(folder, boot.trim(), unix_ms())?;
        say(&found);
        let anchor = found.clock_s.map(UnixSeconds::new);
        let (clock, start) = Clock::start(anchor, at.wall, at.mono);
        say_start(start);
        Ok(Money {
            spending,
            drains: Drains::default(),
            disputed: AtomicU64::new(0),
            unpriced: AtomicU64::new(0),
            clock: Mutex::new(clock),
        })
    }

    /// The ledger goes by the configuration of the moment, and time goes on where nobody calls.
    pub(crate) fn follow(self: &Arc<Money>, current: &Current) {
        let (money, current) = (Arc::downgrade(self), Arc::clone(current));
        self.spending.follow(Box::new(move || {
            if let Some(money) = money.upgrade() {
                money.time(Moment::now());
            }
            let config = Arc::clone(&current.load().config);
            let runs =
                config.budgets.iter().filter_map(|budget| Some((budget.rule.name.to_string(), budget.runs?)));
            Rules { retention_bytes: config.ledger.retention_bytes, runs: runs.collect() }
        }));
    }

    fn time(&self, at: Moment) -> UnixSeconds {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = clock.read(at.wall, at.mono);
        if let Some(step) = reading.step {
            tracing::error!(%step, "budgets go on by the time that has passed");
        }
        self.spending.keep_clock(reading.now.get());
        reading.now
    }

    /// The operator has these budgets from now on; see [`Spending::go_by`].
    pub(crate) fn go_by(&self, budgets: &[Budget]) {
        let caps = budgets.iter().map(|budget| (Arc::clone(&budget.rule.name), Cap::from(&*budget.rule)));
        self.spending.go_by(caps.collect());
    }

    /// The accounts of these budgets that an attempt of this caller draws on, if it begins now.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoRun`] where a budget wants a run and none is named.
    pub(crate) fn draws(
        &self,
        budgets: &[Budget],
        caller: &Caller,
        model: &str,
        upstream: &str,
        at: Moment,
    ) -> Result<Draws, Refusal> {
        let mut draws = Draws { accounts: Accounts::new(), enforces: false, wants_price: false };
        if budgets.is_empty() && caller.budgets().is_empty() {
            return Ok(draws);
        }
        let now = self.time(at);
        for budget in budgets {
            let scope: Arc<str> = match budget.per {
                Per::Key => Arc::clone(&caller.key),
                Per::Team => Arc::clone(&caller.team),
                Per::Model => model.into(),
                Per::Upstream => upstream.into(),
                Per::All => "".into(),
                Per::Run => match (&caller.run, budget.missing_run) {
                    // A run is its key's own: nobody else can spend it.
                    (Some(run), _) => [&*caller.key, "/", run].concat().into(),
                    (None, MissingRun::Refuse) if budget.enforces() => return Err(Refusal::NoRun),
                    (None, MissingRun::Key | MissingRun::Refuse) => [&*caller.key, "/"].concat().into(),
                },
            };
            let span = budget.window.span(now);
            let key = AccountKey { budget: Arc::clone(&budget.rule.name), scope, start_s: span.start.get() };
            let resets_s = span.end.map(UnixSeconds::get);
            draws.enforces |= budget.enforces();
            draws.wants_price |= budget.enforces() && budget.unpriced == Unpriced::Deny;
            draws.accounts.push(Drawn { budget: Arc::clone(&budget.rule), key, resets_s });
        }
        for own in caller.budgets() {
            let name: Arc<str> = window_name(&own.window).into();
            let budget = budget::Budget { name: Arc::clone(&name), cap: own.cap, mode: Mode::Enforce };
            let span = own.window.span(now);
            let key = AccountKey { budget: name, scope: Arc::clone(&caller.key), start_s: span.start.get() };
            let resets_s = span.end.map(UnixSeconds::get);
            (draws.enforces, draws.wants_price) = (true, true);
            draws.accounts.push(Drawn { budget: Arc::new(budget), key, resets_s });
        }
        Ok(draws)
    }

    /// What is left on the tightest of these accounts that refuse, and how many calls share it with this
    /// one. Of an account that the store was not asked for yet, its cap.
    pub(crate) fn tightest(&self, accounts: &[Drawn]) -> (NanoUsd, u64) {
        let mut tightest = (NanoUsd::from_nanos(u64::MAX), 1);
        for drawn in accounts.iter().filter(|drawn| drawn.budget.mode == Mode::Enforce) {
            let (left, holds) = match self.spending.rest(&drawn.key) {
                Some(rest) => (rest.left, rest.holds),
                None => (drawn.budget.cap, 0),
            };
            if left < tightest.0 {
                tightest = (left, holds + 1);
            }
        }
        tightest
    }

    /// Whether money is held for a call of this job.
    pub(crate) fn is_drawn_on(&self, job: &str) -> bool {
        let scope = market::scope(job).into();
        let key = AccountKey { budget: IN_TOTAL.into(), scope, start_s: UnixSeconds::EPOCH.get() };
        self.spending.rest(&key).is_some_and(|rest| rest.holds > 0)
    }

    /// Seconds until a window ends.
    pub(crate) fn until(&self, resets_s: i64, at: Moment) -> u64 {
        u64::try_from(resets_s - self.time(at).get()).unwrap_or(0)
    }
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let wall = UnixSeconds::new(i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX));
        Moment { wall, mono: monotonic() }
    }
}

/// Whose accounts these budgets have, by their names.
pub(crate) fn scopes(budgets: &[Budget]) -> Scopes {
    let scope = |budget: &Budget| {
        let scope = match budget.per {
            Per::Run => Scope::Run,
            Per::Key => Scope::Key,
            Per::Team => Scope::Team,
            Per::Model => Scope::Model,
            Per::All => Scope::All,
            Per::Upstream => return None,
        };
        Some((budget.rule.name.to_string(), scope))
    };
    budgets.iter().filter_map(scope).collect()
}

/// The name of a key's own budget: another one for each window, and one that no budget of the
/// configuration has, since accounts are found by it.
fn window_name(window: &Window) -> String {
    match window {
        Window::Day(zone) => format!("{OF_THE_KEY}each day of {zone}"),
        Window::Month(zone) => format!("{OF_THE_KEY}each month of {zone}"),
        Window::Total => IN_TOTAL.to_owned(),
    }
}

/// Budgets go by a time that nobody can set back: who started with a wrong clock is to know at once.
fn say_start(start: Start) {
    match start {
        Start::Behind { by_seconds } if by_seconds > STEP_SECONDS_MAX => tracing::error!(
            by_seconds,
            "the wall clock is behind the time that budgets had got to: it is wrong, or it was ahead before; budgets go on from where they were"
        ),
        Start::Onward { away_seconds } if away_seconds > AWAY_SECONDS_MAX => tracing::warn!(
            away_seconds,
            "by the wall clock the gateway was off for more than a month: if that is not so, stop it and set the clock right, since budgets never go back"
        ),
        Start::First | Start::Onward { .. } | Start::Behind { .. } => {
            tracing::debug!(?start, "the time of budgets");
        }
    }
}

/// A process that died has left something to be said.
fn say(found: &Found) {
    let Found { settled, in_doubt, amount, power_lost, .. } = found;
    if *power_lost {
        tracing::warn!(%amount, "the machine went down: all that was leased is in doubt until somebody says what it cost (sluice usage --in-doubt)");
    } else if *in_doubt > 0 {
        tracing::warn!(in_doubt, %amount, "calls were under way when the gateway died: what was held for them is in doubt (sluice usage --in-doubt)");
    } else if *settled > 0 {
        tracing::info!(settled, "taken up from the journal");
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time that goes on while the machine sleeps.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
