//! Where something is wrong in a configuration, and what was wanted instead.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A key of a configuration, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A path, or the name of a built-in table.
    pub(crate) file: Arc<str>,
    /// Counted from 1; 0 where there is no file.
    pub(crate) line: usize,
    /// Dotted, such as `upstreams.groq.base_url`.
    pub(crate) key: String,
    /// The value as written, shortened; none for tables and for what may be a secret.
    pub(crate) shown: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    pub(crate) wanted: String,
}

/// Why there is no configuration to serve by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("reading {}", file.display())]
    Unreadable { file: PathBuf, source: std::io::Error },
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

impl Place {
    pub(crate) fn problem(&self, wanted: impl Into<String>) -> Problem {
        Problem { place: self.clone(), wanted: wanted.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place.file)?;
        if self.place.line > 0 {
            write!(f, ":{}", self.place.line)?;
        }
        if !self.place.key.is_empty() {
            write!(f, ": {}", self.place.key)?;
        }
        if let Some(shown) = &self.place.shown {
            write!(f, " = {shown}")?;
        }
        write!(f, ": {}", self.wanted)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
