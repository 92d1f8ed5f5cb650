//! What has happened to plugins: the list of files, and events that are told when they can be seen.

use std::path::Path;
use std::sync::Arc;

use crate::listing::{FileRow, FileState, Listing};
use crate::transition::{Event, Transitions};

#[derive(Default)]
pub struct News {
    files: Arc<Listing>,
    /// The list has changed since it was last given out.
    relisted: bool,
    /// Not told yet.
    events: Vec<Event>,
    transitions: Arc<Transitions>,
}

impl News {
    /// How often each transition was told.
    pub fn transitions(&self) -> &Arc<Transitions> {
        &self.transitions
    }

    /// What became of each file; it is old news then.
    pub fn listing(&mut self) -> Arc<Listing> {
        self.relisted = false;
        Arc::clone(&self.files)
    }

    /// Whether something has happened since the list was last given out.
    pub fn is_any(&self) -> bool {
        self.relisted || !self.events.is_empty()
    }

    /// Something happened.
    pub fn add(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Logs and counts what has happened: to be called when the snapshot shows it, so that whoever
    /// reads the log finds what it says.
    pub fn tell(&mut self) {
        for event in self.events.drain(..) {
            self.transitions.tell(event);
        }
    }

    pub(crate) fn files(&self) -> &Listing {
        &self.files
    }

    /// No row: the file is gone.
    pub(crate) fn row(&mut self, file: &Path, row: Option<FileRow>) {
        self.relisted = true;
        Arc::make_mut(&mut self.files).set(file, row);
    }

    /// A file changes nothing.
    pub(crate) fn left_out(&mut self, state: FileState, file: &Path, event: Event) {
        self.row(file, Some(FileRow::new(state, &event.id, &event.digest, &event.reason)));
        self.events.push(Event { file: Some(file.into()), ..event });
    }
}
