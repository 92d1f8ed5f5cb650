//! Which plugin serves under each id, and what became of each file in the folder.
//!
//! One owner calls it, one call at a time. What would change who serves is a [`Change`]: the owner
//! tries it, and then commits or refuses it, so that a change that does not fit leaves all as it was.

mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sluice_core::probation::{Failure, Verdict};

use crate::admission::digest;
use crate::engine::{Pace, Runtime};
use crate::folder;
use crate::listing::{FileRow, FileState};
use crate::news::News;
use crate::plugin::Plugin;
use crate::shelf::{KeptSeat, Quarantined, Shelf};
use crate::transition::{Event, Transition};
use crate::watched::Books;

/// The plugins of one moment, by id.
pub type PluginSet = BTreeMap<String, Serving>;

/// A plugin that serves.
#[derive(Clone)]
pub struct Serving {
    pub plugin: Arc<Plugin>,
    /// None: it is part of the program.
    pub file: Option<PathBuf>,
    /// Of the snapshot in which it began to serve.
    pub generation: u64,
    pub trial: Option<Trial>,
}

/// A probation under way.
#[derive(Clone)]
pub struct Trial {
    pub books: Arc<Books>,
    /// Who comes back if it fails.
    pub before: Arc<Plugin>,
    before_is_built_in: bool,
}

/// What would change who serves; tried by the owner.
pub struct Change {
    id: String,
    next: Option<Serving>,
    /// An id that the file served until now.
    vacated: Option<String>,
    cause: Cause,
}

enum Cause {
    Arrived { file: PathBuf, digest: String },
    Gone { file: PathBuf },
    Failed { file: PathBuf, plugin: Arc<Plugin>, failure: Failure },
}

impl Change {
    /// The plugins that it is about.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        [Some(self.id.as_str()), self.vacated.as_deref()].into_iter().flatten()
    }
}

/// Files, seats, and what is kept of them.
pub struct Registry {
    runtime: Runtime,
    dir: PathBuf,
    built_in: BTreeMap<String, Arc<Plugin>>,
    /// Plugins of files, by id.
    seats: BTreeMap<String, Serving>,
    news: News,
    shelf: Shelf,
    /// Called when a probation has come to a verdict.
    decided: Arc<dyn Fn() + Send + Sync>,
}

// === impl Registry ===

impl Registry {
    /// What has happened, and what became of each file.
    pub fn news(&mut self) -> &mut News {
        &mut self.news
    }

    /// Who serves now.
    pub fn plugins(&self) -> PluginSet {
        let built_in = self.built_in.iter().map(|(id, plugin)| {
            let plugin = Arc::clone(plugin);
            (id.clone(), Serving { plugin, file: None, generation: 1, trial: None })
        });
        let mut plugins: PluginSet = built_in.collect();
        plugins.extend(self.seats.clone());
        plugins
    }

    /// Who would serve after a change.
    pub fn preview(&self, change: &Change) -> PluginSet {
        let mut plugins = self.plugins();
        for id in [Some(&change.id), change.vacated.as_ref()].into_iter().flatten() {
            plugins.remove(id);
            if let Some(plugin) = self.built_in.get(id) {
                let plugin = Arc::clone(plugin);
                plugins.insert(id.clone(), Serving { plugin, file: None, generation: 1, trial: None });
            }
        }
        if let Some(next) = &change.next {
            plugins.insert(change.id.clone(), next.clone());
        }
        plugins
    }

    /// Shows that a file is being looked at.
    pub fn admitting(&mut self, file: &Path) {
        self.news.row(file, Some(FileRow::new(FileState::Admitting, "", "", "")));
    }

    /// Takes a file that has come to rest; `gone` are files that are known to be there no more.
    pub fn arrived(&mut self, file: &Path, gone: &[PathBuf], now: Instant, pace: Pace) -> Option<Change> {
        let bytes = match folder::read(&self.dir, file) {
            Ok(bytes) => bytes,
            Err(unfit) => return self.refused(file, "", "", &unfit.to_string()),
        };
        let known_as = digest(&bytes);
        let held = self.seat_of(file).map(|(id, seat)| (id.clone(), seat.plugin.digest() == known_as));
        if let Some((id, true)) = held {
            self.news.row(file, Some(FileRow::new(FileState::Serving, &id, &known_as, "")));
            return None;
        }
        if let Some(shut_out) = self.shelf.record().quarantine.get(&known_as).cloned() {
            let Quarantined { id, version, reason, .. } = shut_out;
            let reason = format!("{reason} (POST /admin/v1/plugins/{id}/release lets it in again)");
            let event = Event { id, version, digest: known_as, reason, ..Event::of(Transition::Quarantined) };
            self.news.left_out(FileState::Quarantined, file, event);
            return None;
        }
        let plugin = match self.runtime.admit(&bytes, pace) {
            Ok(plugin) => Arc::new(plugin),
            Err(error) => return self.refused(file, "", &known_as, &error.to_string()),
        };
        let id = plugin.manifest().id.clone();
        let holder = self.seats.get(&id).and_then(|seat| seat.file.clone()).filter(|holder| holder != file);
        if let Some(holder) = holder {
            if !gone.contains(&holder) && !self.serves_without_file(&holder) {
                let reason = format!("{} serves as {id:?} already: take one of them away", holder.display());
                let event = Event { reason, ..Event::about(Transition::Standby, &plugin) };
                self.news.left_out(FileState::Standby, file, event);
                return None;
            }
            // The same plugin under another name.
            if let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.plugin.digest() == known_as) {
                seat.file = Some(file.into());
                self.news.row(&holder, None);
                self.news.row(file, Some(FileRow::new(FileState::Serving, &id, &known_as, "")));
                self.keep();
                return None;
            }
        }
        self.shelf.keep(&bytes, &known_as);
        let trial = self.trial(&id, None, &known_as, now);
        Some(Change {
            vacated: held.map(|(held, _)| held).filter(|held| *held != id),
            next: Some(Serving { plugin, file: Some(file.into()), generation: 0, trial }),
            id,
            cause: Cause::Arrived { file: file.into(), digest: known_as },
        })
    }

    /// Probation against whoever would come back; none where there is nobody, or where an
    /// operator has let this very version in.
    fn trial(&self, id: &str, before: Option<Arc<Plugin>>, digest: &str, now: Instant) -> Option<Trial> {
        if self.shelf.record().released.contains(digest) {
            return None;
        }
        // One that has not proven itself is nobody to come back to.
        let seat = self.seats.get(id).and_then(|seat| match &seat.trial {
            Some(trial) if !trial.before_is_built_in => Some(Arc::clone(&trial.before)),
            Some(_) => None,
            None => Some(Arc::clone(&seat.plugin)),
        });
        let file = before.or(seat);
        let before_is_built_in = file.is_none();
        let before = file.or_else(|| self.built_in.get(id).cloned())?;
        let decided = Arc::clone(&self.decided);
        let books = Books::new(before.counters().tally(), now, Box::new(move || decided()));
        Some(Trial { books: Arc::new(books), before, before_is_built_in })
    }

    /// A file of the same id that waits for this one to go.
    pub fn heir(&self, file: &Path) -> Option<PathBuf> {
        let (id, _) = self.seat_of(file)?;
        self.news.files().of(id, FileState::Standby).next()
    }

    /// Files whose plugins were good, but did not fit the configuration.
    pub fn misfits(&self) -> Vec<PathBuf> {
        let refused = |(file, row): (&Path, &FileRow)| {
            (row.state == FileState::Refused && row.id.is_some()).then(|| file.to_owned())
        };
        self.news.files().iter().filter_map(refused).collect()
    }

    /// A file is there no more.
    pub fn gone(&mut self, file: &Path) -> Option<Change> {
        self.news.row(file, None);
        let (id, _) = self.seat_of(file)?;
        Some(Change { id: id.clone(), next: None, vacated: None, cause: Cause::Gone { file: file.into() } })
    }

    /// Probations that have come to an end, and how.
    pub fn verdicts(&self, now: Instant) -> Vec<(String, Verdict)> {
        let trials = self.seats.iter().filter_map(|(id, seat)| Some((id, seat.trial.as_ref()?)));
        let verdicts = trials.map(|(id, trial)| (id.clone(), trial.books.verdict(now)));
        verdicts.filter(|(_, verdict)| *verdict != Verdict::Open).collect()
    }

    /// A version has proven itself.
    pub fn proven(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else { return };
        seat.trial = None;
        let seat = seat.clone();
        self.tell(Transition::Proven, &seat);
        self.keep();
    }

    /// A version has failed its probation.
    pub fn failed(&mut self, id: &str, failure: Failure) -> Option<Change> {
        let seat = self.seats.get(id)?;
        let (trial, file) = (seat.trial.as_ref()?, seat.file.clone()?);
        let next = (!trial.before_is_built_in).then(|| Serving {
            plugin: Arc::clone(&trial.before),
            file: Some(file.clone()),
            generation: 0,
            trial: None,
        });
        let cause = Cause::Failed { file, plugin: Arc::clone(&seat.plugin), failure };
        Some(Change { id: id.into(), next, vacated: None, cause })
    }

    /// Lets the versions of this id in again that were shut out; gives the files that hold one,
    /// to be taken anew. None where there was none.
    pub fn release(&mut self, id: &str) -> Option<Vec<PathBuf>> {
        let mut record = self.shelf.record().clone();
        let shut_out = record.quarantine.iter().filter(|(_, shut_out)| shut_out.id == id);
        let shut_out: Vec<(String, String)> =
            shut_out.map(|(digest, shut_out)| (digest.clone(), shut_out.version.clone())).collect();
        for (digest, version) in &shut_out {
            record.quarantine.remove(digest);
            record.released.insert(digest.clone());
            let (version, digest) = (version.clone(), digest.clone());
            self.news.add(Event { id: id.into(), version, digest, ..Event::of(Transition::Released) });
        }
        self.shelf.write(record);
        (!shut_out.is_empty()).then(|| self.news.files().of(id, FileState::Quarantined).collect())
    }

    /// A change was tried, and serves as this generation.
    pub fn commit(&mut self, change: Change, generation: u64) {
        let Change { id, next, vacated, cause } = change;
        let leaving = self.seats.get(&id).cloned();
        if let Some(vacated) = vacated {
            self.seats.remove(&vacated);
        }
        match next {
            Some(next) => drop(self.seats.insert(id.clone(), Serving { generation, ..next })),
            None => drop(self.seats.remove(&id)),
        }
        match cause {
            Cause::Arrived { file, digest } => {
                self.news.row(&file, Some(FileRow::new(FileState::Serving, &id, &digest, "")));
                if let Some(seat) = self.seats.get(&id).cloned() {
                    self.tell(Transition::Activated, &seat);
                }
                if let Some(left) = leaving.and_then(|seat| seat.file).filter(|left| *left != file) {
                    self.news.row(&left, None);
                }
            }
            Cause::Gone { .. } => {
                if let Some(seat) = leaving {
                    self.tell(Transition::Removed, &Serving { generation, ..seat });
                }
            }
            Cause::Failed { file, plugin, failure } => self.shut_out(&file, &plugin, failure, generation),
        }
        self.keep();
    }

    fn shut_out(&mut self, file: &Path, plugin: &Arc<Plugin>, failure: Failure, generation: u64) {
        let (id, version) = (plugin.manifest().id.clone(), plugin.manifest().version.clone());
        let since_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let reason = format!("it was taken back: {failure}");
        let digest = plugin.digest();
        self.news.add(Event {
            file: Some(file.into()),
            generation,
            reason: reason.clone(),
            ..Event::about(Transition::RolledBack, plugin)
        });
        self.news.row(file, Some(FileRow::new(FileState::Quarantined, &id, digest, &reason)));
        let mut record = self.shelf.record().clone();
        record.quarantine.insert(digest.to_owned(), Quarantined { id, version, reason, since_s });
        self.shelf.write(record);
    }

    /// A change was tried and does not fit; who serves, serves on.
    pub fn refuse(&mut self, change: Change, reason: &str) {
        match change.cause {
            Cause::Arrived { file, digest } => {
                self.refused(&file, &change.id, &digest, reason);
            }
            Cause::Gone { file } => {
                let reason = format!("the file is gone, but cannot be missed, so it serves on: {reason}");
                self.refused(&file, &change.id, "", &reason);
            }
            // There is nothing to go back to under today's configuration: the probation is over.
            Cause::Failed { file, failure, .. } => {
                if let Some(seat) = self.seats.get_mut(&change.id) {
                    seat.trial = None;
                }
                let reason = format!("it fails ({failure}), but the version before does not fit: {reason}");
                tracing::error!(plugin = change.id, file = %file.display(), reason, "no way back");
            }
        }
    }

    /// Its file is gone, but it could not be missed.
    fn serves_without_file(&self, file: &Path) -> bool {
        let refused = self.news.files().get(file).is_some_and(|row| row.state == FileState::Refused);
        refused && file.symlink_metadata().is_err()
    }

    fn seat_of(&self, file: &Path) -> Option<(&String, &Serving)> {
        self.seats.iter().find(|(_, seat)| seat.file.as_deref() == Some(file))
    }

    fn refused(&mut self, file: &Path, id: &str, digest: &str, reason: &str) -> Option<Change> {
        let (id, digest, reason) = (id.into(), digest.into(), reason.into());
        let event = Event { id, digest, reason, ..Event::of(Transition::Refused) };
        self.news.left_out(FileState::Refused, file, event);
        None
    }

    fn tell(&mut self, transition: Transition, seat: &Serving) {
        let (file, generation) = (seat.file.clone(), seat.generation);
        self.news.add(Event { file, generation, ..Event::about(transition, &seat.plugin) });
    }

    /// Writes down what the next process is to begin with.
    fn keep(&mut self) {
        let mut record = self.shelf.record().clone();
        let seats = self.seats.iter().filter_map(|(id, seat)| {
            let before = seat.trial.as_ref().filter(|trial| !trial.before_is_built_in);
            let kept = KeptSeat {
                file: seat.file.as_ref()?.file_name()?.into(),
                digest: seat.plugin.digest().into(),
                proven: seat.trial.is_none(),
                before: before.map(|trial| trial.before.digest().to_owned()),
            };
            Some((id.clone(), kept))
        });
        record.seats = seats.collect();
        self.shelf.write(record);
    }
}
