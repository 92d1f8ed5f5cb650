//! Changes what serves while it serves: the one thread that looks at files, admits plugins, judges
//! probations and replaces the snapshot.

mod boot;

pub(crate) use boot::{BootError, Booted, Purpose};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sluice_core::probation::Verdict;
use sluice_runtime::{
    Change, Event, Folder, Pace, REST, Registry, Scan, Settling, Transition, Transitions, Watcher,
};
use tokio::sync::oneshot;

use crate::config::{Config, Environment};
use crate::money::Money;
use crate::routes::{Assembled, Flaw, Parts, Routes};
use crate::snapshot::{ConfigState, Current, Snapshot};

/// Between two looks at the files where no event shortens it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Messages that may wait; a hint that finds no room is one of many.
const MESSAGES_MAX: usize = 64;

/// Between two snapshots that differ only in the list of files.
const LISTING_EVERY: Duration = Duration::from_millis(100);

/// Below the priority of requests; admission itself runs lower still.
const NICENESS: i32 = 5;

/// Owns everything that may change.
pub(crate) struct Supervisor {
    parts: Parts,
    registry: Registry,
    folder: Folder,
    config_files: Settling,
    /// What the command line names.
    config_file: Option<PathBuf>,
    /// What the process began with; a change of the listener and the like needs a restart.
    started_with: Arc<Config>,
    current: Current,
    /// The snapshot that is being made; `current` has it, or will have it.
    next: Snapshot,
    published: Instant,
    inbox: Receiver<Message>,
    /// Has to go by the caps of the configuration; none where there is no ledger.
    money: Option<Arc<Money>>,
}

/// How others reach the supervisor; it ends with the last of these.
#[derive(Clone)]
pub(crate) struct Handle {
    /// Nobody else owns it: when it is gone, so is the supervisor.
    messages: Arc<SyncSender<Message>>,
    transitions: Arc<Transitions>,
}

enum Message {
    /// Something may have changed.
    Look,
    Release {
        id: String,
        answer: oneshot::Sender<Released>,
    },
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    LetIn {
        files: usize,
    },
    /// No version of this id is shut out.
    Nobody,
}

// === impl Handle ===

impl Handle {
    /// Lets the versions of a plugin in again that were shut out; none where the supervisor has
    /// more to do than it can take, or ends.
    pub(crate) async fn release(&self, id: &str) -> Option<Released> {
        let (answer, answered) = oneshot::channel();
        self.messages.try_send(Message::Release { id: id.into(), answer }).ok()?;
        answered.await.ok()
    }

    pub(crate) fn transitions(&self) -> &Transitions {
        &self.transitions
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// Starts the thread. It ends when all handles are gone; a plugin that is being compiled then
    /// is left to the end of the process, since whatever is written to disk is written whole.
    pub(crate) fn start(mut self, handle: &Handle, money: Option<Arc<Money>>) -> std::io::Result<()> {
        self.money = money;
        let messages = Arc::downgrade(&handle.messages);
        let run = move || {
            let lowered = rustix::process::nice(NICENESS);
            tracing::debug!(?lowered, "priority of the supervisor");
            let watcher = self.watcher(messages);
            self.run(watcher);
        };
        std::thread::Builder::new().name("supervisor".into()).spawn(run).map(drop)
    }

    /// Hints at a look when something changes in the plugin folder, or a file of the configuration
    /// does; other files beside those are nobody's business.
    fn watcher(&self, messages: Weak<SyncSender<Message>>) -> Watcher {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let dir = absolute(self.folder.dir());
        let files = self.next.config.files(self.config_file.as_deref());
        let files: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
        let parents = files.iter().filter_map(|file| file.parent()).map(Path::to_owned);
        let folders: BTreeSet<PathBuf> = parents.chain([dir.clone()]).collect();
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        let wanted = self.started_with.plugins.file_events;
        Watcher::new(&folders, wanted, move |path| {
            if path.starts_with(&dir) || files.iter().any(|file| file == path) {
                hint(&messages);
            }
        })
    }

    fn run(mut self, mut watcher: Watcher) {
        let mut look_at = Instant::now();
        loop {
            match self.inbox.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    self.handle(message);
                    // Hints come in bursts; one look answers them all.
                    while let Ok(message) = self.inbox.try_recv() {
                        self.handle(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            watcher.renew();
            let now = Instant::now();
            let restless = [self.look_at_folder(now), self.look_at_config(now)];
            self.judge(now);
            self.publish_listing(Instant::now(), true);
            let rested = restless.into_iter().flatten().min();
            look_at = rested.map_or(Instant::now() + LOOK_EVERY, |rested| rested.min(now + LOOK_EVERY));
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Look => {}
            Message::Release { id, answer } => {
                let released = match self.registry.release(&id) {
                    Some(files) => {
                        files.iter().for_each(|file| self.take(file, &[]));
                        Released::LetIn { files: files.len() }
                    }
                    None => Released::Nobody,
                };
                // Who asked may have left.
                let _ = answer.send(released);
            }
        }
    }

    /// Takes what has come to rest; gives the time at which more may have.
    fn look_at_folder(&mut self, now: Instant) -> Option<Instant> {
        let (changes, beyond) = match self.folder.scan(now) {
            Scan::Read { changes, beyond } => (changes, beyond),
            Scan::Unreadable(reason) => {
                if self.next.folder.unreadable.as_ref() != Some(&reason) {
                    let dir = self.folder.dir().display();
                    tracing::info!(%dir, reason, "the plugin folder tells nothing; who serves, serves on");
                    self.next.folder.unreadable = Some(reason);
                    self.store();
                }
                return None;
            }
        };
        if self.next.folder.unreadable.take().is_some() {
            self.store();
        }
        if beyond != self.next.folder.beyond {
            tracing::warn!(
                beyond,
                "too many files in the plugin folder; those last by name are not looked at"
            );
            self.next.folder.beyond = beyond;
            self.store();
        }
        for file in &changes.arrived {
            self.take(file, &changes.gone);
        }
        for file in &changes.gone {
            self.let_go(file, &changes.gone);
        }
        changes.restless
    }

    /// A file is gone: another one of its id, or the built-in plugin, serves in its place.
    fn let_go(&mut self, file: &Path, gone: &[PathBuf]) {
        if let Some(heir) = self.registry.heir(file) {
            self.take(&heir, gone);
        }
        if let Some(change) = self.registry.gone(file) {
            self.attempt(change);
        }
    }

    fn take(&mut self, file: &Path, gone: &[PathBuf]) {
        self.registry.admitting(file);
        self.publish_listing(Instant::now(), false);
        if let Some(change) = self.registry.arrived(file, gone, Instant::now(), Pace::Serving) {
            self.attempt(change);
        }
    }

    /// Puts all together as it would be, and swaps if it fits.
    fn attempt(&mut self, change: Change) {
        let plugins = self.registry.preview(&change);
        let config = Arc::clone(&self.next.config);
        let assembled = Routes::assemble(&config, &plugins, &self.parts, &self.next.routes);
        match refusal(&config, &assembled, change.ids()) {
            Some(reason) => self.registry.refuse(change, &reason),
            None => {
                self.next.generation += 1;
                self.registry.commit(change, self.next.generation);
                self.publish(assembled.routes);
                // What the configuration was waiting for may be there now.
                if self.next.config_state.refused.is_some() {
                    self.reload_config();
                }
            }
        }
    }

    /// Lets versions go on that have proven themselves, and takes those back that have failed.
    fn judge(&mut self, now: Instant) {
        for (id, verdict) in self.registry.verdicts(now) {
            match verdict {
                Verdict::Open => {}
                Verdict::Passed => {
                    self.registry.proven(&id);
                    // The same plugins, so the same generation: only who was replaced is let go.
                    let plugins = self.registry.plugins();
                    let before = Arc::clone(&self.next.routes);
                    let assembled = Routes::assemble(&self.next.config, &plugins, &self.parts, &before);
                    self.publish(assembled.routes);
                }
                Verdict::Failed(failure) => {
                    if let Some(change) = self.registry.failed(&id, failure) {
                        self.attempt(change);
                    }
                }
            }
        }
    }

    fn look_at_config(&mut self, now: Instant) -> Option<Instant> {
        let files = self.next.config.files(self.config_file.as_deref());
        let there = files.into_iter().filter(|file| file.symlink_metadata().is_ok()).collect();
        let changes = self.config_files.look(there, now, REST);
        if !changes.arrived.is_empty() || !changes.gone.is_empty() {
            self.reload_config();
        }
        changes.restless
    }

    /// Whole, or not at all.
    fn reload_config(&mut self) {
        let (config, routes) = match self.read_config() {
            Ok(read) => read,
            Err(reason) => {
                let event = Event { reason: reason.clone(), ..Event::of(Transition::ConfigRefused) };
                self.registry.news().add(event);
                self.next.config_state.refused = Some(reason);
                return self.store();
            }
        };
        let needs_restart = config.needs_restart(&self.started_with);
        for key in &needs_restart {
            tracing::warn!(key, "changed; takes effect at the next start");
        }
        self.next.generation += 1;
        let event = Event { generation: self.next.generation, ..Event::of(Transition::ConfigReloaded) };
        self.registry.news().add(event);
        self.next.config = Arc::new(config);
        self.next.config_state = ConfigState { refused: None, needs_restart };
        // Before it serves: who has begun by the one before draws on the same accounts.
        self.money.iter().for_each(|money| money.go_by(&self.next.config.budgets));
        self.publish(routes);
        // What did not fit the old configuration may fit this one.
        for file in self.registry.misfits() {
            match file.symlink_metadata() {
                Ok(_) => self.take(&file, &[]),
                Err(_) => self.let_go(&file, &[]),
            }
        }
    }

    fn read_config(&self) -> Result<(Config, Routes), String> {
        if let Some(file) = self.next.config.file.as_ref().filter(|file| !file.exists()) {
            return Err(format!("{} is gone", file.display()));
        }
        let environment = Environment::load().map_err(|error| error.to_string())?;
        let config =
            Config::load(self.config_file.as_deref(), &environment).map_err(|error| error.to_string())?;
        if let Some(reason) = config.exposes(&self.started_with) {
            return Err(reason);
        }
        let plugins = self.registry.plugins();
        let assembled = Routes::assemble(&config, &plugins, &self.parts, &self.next.routes);
        match refusal(&config, &assembled, std::iter::empty()) {
            Some(reason) => Err(reason),
            None => Ok((config, assembled.routes)),
        }
    }

    fn publish(&mut self, routes: Routes) {
        self.next.routes = Arc::new(routes);
        self.next.plugins = Arc::new(self.registry.plugins());
        self.store();
    }

    /// Shows what became of files, now and then where there are many of them.
    fn publish_listing(&mut self, now: Instant, last: bool) {
        let changed = self.registry.news().is_any();
        if changed && (last || now.saturating_duration_since(self.published) >= LISTING_EVERY) {
            self.store();
        }
    }

    fn store(&mut self) {
        self.next.folder.files = self.registry.news().listing();
        self.published = Instant::now();
        for upstream in self.next.routes.upstreams() {
            upstream.lanes.set_limits(upstream.breaker);
        }
        self.current.store(Arc::new(self.next.clone()));
        self.registry.news().tell();
    }
}

/// Asks for a look; where there is no room, one is due anyway.
fn hint(messages: &Weak<SyncSender<Message>>) {
    if let Some(messages) = messages.upgrade() {
        let _ = messages.try_send(Message::Look);
    }
}

/// Why this is not to be served: with a file, whatever is wrong; without, what is wrong with
/// plugins that have just changed, since the rest was left out from the start.
fn refusal<'a>(
    config: &Config,
    assembled: &Assembled,
    changed: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let changed: Vec<&str> = changed.collect();
    let counts = |flaw: &&Flaw| config.file.is_some() || changed.contains(&flaw.plugin.as_str());
    let flaws: Vec<String> =
        assembled.flaws.iter().filter(counts).map(|flaw| flaw.problem.to_string()).collect();
    (!flaws.is_empty()).then(|| flaws.join("; "))
}
