//! What became of each file in the folder, for the operator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files by path.
#[derive(Clone, Debug, Default)]
pub struct Listing(BTreeMap<PathBuf, FileRow>);

/// One file of the folder, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    pub state: FileState,
    pub id: Option<String>,
    pub digest: Option<String>,
    /// Why it does not serve.
    pub reason: Option<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Being compiled and tried.
    Admitting,
    Serving,
    /// Another file of its id serves.
    Standby,
    Refused,
    Quarantined,
}

// === impl Listing ===

impl Listing {
    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &FileRow)> {
        self.0.iter().map(|(file, row)| (file.as_path(), row))
    }

    pub(crate) fn get(&self, file: &Path) -> Option<&FileRow> {
        self.0.get(file)
    }

    /// Files of one id in one state.
    pub(crate) fn of(&self, id: &str, state: FileState) -> impl Iterator<Item = PathBuf> {
        let rows = self.0.iter().filter(move |(_, row)| row.state == state && row.id.as_deref() == Some(id));
        rows.map(|(file, _)| file.clone())
    }

    /// No row: the file is gone.
    pub(crate) fn set(&mut self, file: &Path, row: Option<FileRow>) {
        match row {
            Some(row) => self.0.insert(file.into(), row),
            None => self.0.remove(file),
        };
    }
}

impl FileRow {
    /// `id` and `digest` are empty where they are not known.
    pub(crate) fn new(state: FileState, id: &str, digest: &str, reason: &str) -> FileRow {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        FileRow { state, id: known(id), digest: known(digest), reason: known(reason) }
    }
}

impl FileState {
    /// The name in `/admin/v1/plugins`.
    pub fn name(self) -> &'static str {
        match self {
            FileState::Admitting => "admitting",
            FileState::Serving => "active",
            FileState::Standby => "standby",
            FileState::Refused => "refused",
            FileState::Quarantined => "quarantined",
        }
    }
}
