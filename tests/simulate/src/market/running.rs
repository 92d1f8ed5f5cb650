//! A market that runs: its state, its clock and its tasks, which end with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::market::books::MarketBooks;
use crate::market::date;
use crate::market::detail::Refused;
use crate::market::job::{Given, Job};
use crate::market::life;
use crate::market::script::MarketScript;
use crate::market::state::State;

/// Calls of winners' endpoints at once: 256, each with a socket of its own.
const CALLS_MAX: usize = 256;

/// One market.
pub(crate) struct Market {
    pub(crate) name: String,
    pub(crate) script: MarketScript,
    /// Who may call a winner now.
    pub(crate) calls: Semaphore,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    began: Instant,
    began_at: SystemTime,
}

/// A market and the tasks that move it. Dropping it ends them.
pub(crate) struct Running {
    pub(crate) market: Arc<Market>,
    tasks: Mutex<JoinSet<()>>,
    ended: watch::Sender<bool>,
}

// === impl Market ===

impl Market {
    fn new(name: &str, script: MarketScript) -> Market {
        Market {
            name: name.to_owned(),
            calls: Semaphore::new(CALLS_MAX),
            state: Mutex::new(State::new(&script)),
            script,
            changed: watch::Sender::default(),
            began: Instant::now(),
            began_at: SystemTime::now(),
        }
    }

    /// Time since the market began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns at that time since the market began.
    pub(crate) async fn sleep_until(&self, time: Duration) {
        tokio::time::sleep_until(self.began + time).await;
    }

    pub(crate) fn date(&self, time: Duration) -> String {
        date::iso(self.began_at + time)
    }

    /// Reads the state.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Changes the state and tells who waits for that.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_replace(());
        changed
    }

    /// Returns what `ready` finds as soon as it finds something.
    pub(crate) async fn when<T>(&self, ready: impl Fn(&State) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        loop {
            if let Some(found) = self.read(&ready) {
                return found;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await; // the sender is ours: it outlives this borrow
            }
        }
    }

    pub(crate) fn books(&self) -> MarketBooks {
        self.read(|state| MarketBooks::of(self, state))
    }

    /// The books as soon as so many instances are final.
    pub(crate) async fn books_when_final(&self, instances: usize) -> MarketBooks {
        self.when(|state| (state.finals() >= instances).then_some(())).await;
        self.books()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Running ===

impl Running {
    /// Opens the market; its season begins. Needs a Tokio runtime.
    pub(crate) fn start(name: &str, script: MarketScript) -> Arc<Running> {
        let market = Arc::new(Market::new(name, script));
        let running = Running {
            tasks: Mutex::new(JoinSet::new()),
            ended: watch::Sender::new(false),
            market: Arc::clone(&market),
        };
        if market.script.season.instances > 0 {
            running.spawn(life::season(market));
        }
        Arc::new(running)
    }

    /// Puts a test's instance on the market; the answer is its id.
    pub(crate) fn give(&self, given: &Given) -> Result<String, String> {
        let (index, id) = self.market.change(|state| {
            state.given += 1;
            let job = Job::given(given, &self.market.script, state.given)?;
            let id = job.id.clone();
            let placed = state.place(job, &self.market.script, self.market.now());
            placed.map(|index| (index, id)).ok_or_else(|| "the market is full".to_owned())
        })?;
        self.lives(index);
        Ok(id)
    }

    /// Lets an instance that was put on the market live its life.
    pub(crate) fn lives(&self, index: usize) {
        self.spawn(life::of_instance(Arc::clone(&self.market), index));
    }

    /// Returns when the market was ended: an answer that hangs ends then.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await; // the sender is ours
    }

    /// Ends all tasks, though requests under way still hold the market.
    pub(crate) fn end(&self) {
        self.tasks().abort_all();
        self.ended.send_replace(true);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {} // those that have ended take no room
        tasks.spawn(task);
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is told by a market that was ended meanwhile.
pub(crate) fn gone() -> Refused {
    Refused::new(http::StatusCode::SERVICE_UNAVAILABLE, "The market was ended")
}
