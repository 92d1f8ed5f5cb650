//! Which accounts an attempt draws on, by which time, and the ledger behind them.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_core::books::Mode;
use sluice_core::clock::{Clock, UnixSeconds};
use sluice_core::money::NanoUsd;
use sluice_core::window::{Window, Zone};
use sluice_ledger::budget::{self, AccountKey, Drawn, Scope, Scopes};
use sluice_ledger::recovery::{Found, RecoveryError};
use sluice_ledger::rules::Rules;
use sluice_ledger::spending::Spending;
use smallvec::SmallVec;

use crate::caller::Caller;
use crate::config::{Budget, MissingRun, Per, Unpriced};
use crate::drained::Drains;
use crate::refusal::Refusal;
use crate::snapshot::Current;

/// Of one attempt; few have more.
pub(crate) type Accounts = SmallVec<[Drawn; 4]>;

/// The ledger, and the time of budgets.
pub(crate) struct Money {
    pub(crate) spending: Arc<Spending>,
    /// Paid answers that nobody waits for.
    pub(crate) drains: Drains,
    /// Attempts whose vendor reported less than it delivered.
    pub(crate) disputed: AtomicU64,
    clock: Mutex<Clock>,
}

/// What an attempt draws on.
pub(crate) struct Draws {
    pub(crate) accounts: Accounts,
    /// One of them does not let calls pass whose cost nobody can tell.
    pub(crate) wants_price: bool,
}

impl Money {
    /// Opens the ledger in this folder, and says what it has found there.
    ///
    /// # Errors
    ///
    /// [`RecoveryError`].
    pub(crate) fn open(folder: &Path) -> Result<Money, RecoveryError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let (spending, found) = Spending::open(folder, boot.trim(), unix_ms())?;
        say(&found);
        let anchor = found.clock_s.map(UnixSeconds::new);
        let (clock, start) = Clock::start(anchor, wall(), monotonic());
        tracing::debug!(?start, "the time of budgets");
        Ok(Money {
            spending,
            drains: Drains::default(),
            disputed: AtomicU64::new(0),
            clock: Mutex::new(clock),
        })
    }

    /// The ledger goes by the configuration of the moment, and time goes on where nobody calls.
    pub(crate) fn follow(self: &Arc<Money>, current: &Current) {
        let (money, current) = (Arc::downgrade(self), Arc::clone(current));
        self.spending.follow(Box::new(move || {
            if let Some(money) = money.upgrade() {
                money.now();
            }
            let config = Arc::clone(&current.load().config);
            let runs =
                config.budgets.iter().filter_map(|budget| Some((budget.rule.name.to_string(), budget.runs?)));
            Rules { retention_bytes: config.ledger.retention_bytes, runs: runs.collect() }
        }));
    }

    fn now(&self) -> UnixSeconds {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = clock.read(wall(), monotonic());
        if let Some(step) = reading.step {
            tracing::error!(%step, "budgets go on by the time that has passed");
        }
        self.spending.keep_clock(reading.now.get());
        reading.now
    }

    /// The accounts of these budgets that an attempt of this caller draws on.
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
    ) -> Result<Draws, Refusal> {
        let mut draws = Draws { accounts: Accounts::new(), wants_price: false };
        if budgets.is_empty() && caller.budgets().is_empty() {
            return Ok(draws);
        }
        let now = self.now();
        for budget in budgets {
            let scope: Arc<str> = match budget.per {
                Per::Key => Arc::clone(&caller.key),
                Per::Team => Arc::clone(&caller.team),
                Per::Model => model.into(),
                Per::Upstream => upstream.into(),
                Per::All => "".into(),
                Per::Run => match (&caller.run, budget.missing_run) {
                    // A run is its key's own: nobody else can spend it.
                    (Some(run), _) => format!("{}/{run}", caller.key).into(),
                    (None, MissingRun::Key) => format!("{}/", caller.key).into(),
                    (None, MissingRun::Refuse) => return Err(Refusal::NoRun),
                },
            };
            let span = budget.window.span(now);
            let key = AccountKey { budget: Arc::clone(&budget.rule.name), scope, start_s: span.start.get() };
            let resets_s = span.end.map(UnixSeconds::get);
            draws.wants_price |= budget.unpriced == Unpriced::Deny;
            draws.accounts.push(Drawn { budget: Arc::clone(&budget.rule), key, resets_s });
        }
        for own in caller.budgets() {
            let name: Arc<str> = own_name(&own.window).into();
            let budget = budget::Budget { name: Arc::clone(&name), cap: own.cap, mode: Mode::Enforce };
            let span = own.window.span(now);
            let key = AccountKey { budget: name, scope: Arc::clone(&caller.key), start_s: span.start.get() };
            let resets_s = span.end.map(UnixSeconds::get);
            draws.wants_price = true;
            draws.accounts.push(Drawn { budget: Arc::new(budget), key, resets_s });
        }
        Ok(draws)
    }

    /// What is left on the tightest of these accounts, and how many calls share it with this one.
    pub(crate) fn tightest(&self, accounts: &[Drawn]) -> (NanoUsd, u64) {
        let mut tightest = (NanoUsd::from_nanos(u64::MAX), 1);
        for drawn in accounts {
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

    /// Seconds until a window ends.
    pub(crate) fn until(&self, resets_s: i64) -> u64 {
        u64::try_from(resets_s - self.now().get()).unwrap_or(0)
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
    let of_keys = [Window::Day(Zone::default()), Window::Month(Zone::default()), Window::Total];
    let of_keys = of_keys.iter().map(|window| (own_name(window), Scope::Key));
    budgets.iter().filter_map(scope).chain(of_keys).collect()
}

/// The name of a key's own budget.
fn own_name(window: &Window) -> String {
    format!("of the key, {}", window_name(window))
}

fn window_name(window: &Window) -> &'static str {
    match window {
        Window::Day(_) => "each day",
        Window::Month(_) => "each month",
        Window::Total => "in total",
    }
}

/// A process that died has left something to be said.
fn say(found: &Found) {
    let Found { settled, in_doubt, amount, power_lost, .. } = found;
    if *power_lost {
        tracing::warn!(%amount, "the machine went down: all that was leased is in doubt (sluice usage --in-doubt)");
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

fn wall() -> UnixSeconds {
    UnixSeconds::new(i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX))
}

/// Time that goes on while the machine sleeps.
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
