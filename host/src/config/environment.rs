//! The process environment and `.env`: the one door to both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::problem::{ConfigError, Place};

/// Read from the working directory, if it is there.
pub(super) const FILE: &str = ".env";

/// Variables by name. The process's own come before those of `.env`.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    file: BTreeMap<String, String>,
    process: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the process environment and `.env` of the working directory, if there is one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the line of `.env` that is none.
    pub(crate) fn load() -> Result<Environment, ConfigError> {
        #[allow(clippy::disallowed_methods, reason = "the one door to the environment")]
        let process = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Environment { file: read_file(Path::new(FILE))?, process })
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Environment {
        let process = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Environment { file: BTreeMap::new(), process }
    }

    /// A variable's value; a blank one is a missing one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.process.get(name).or_else(|| self.file.get(name))?;
        (!value.trim().is_empty()).then_some(value)
    }
}

fn read_file(file: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(ConfigError::Unreadable { file: file.into(), source }),
    };
    let mut variables = BTreeMap::new();
    for item in dotenvy::Iter::new(text.as_bytes()) {
        match item {
            Ok((name, value)) => variables.insert(name, value),
            // The line's text may hold a secret: only its number is told.
            Err(error) => {
                let line = match &error {
                    dotenvy::Error::LineParse(text, _) => line_of(file, text),
                    _ => 0,
                };
                let place = Place { file: Arc::from(FILE), line, key: String::new(), shown: None };
                return Err(ConfigError::Problems(vec![
                    place.problem("wanted lines of the form NAME=value"),
                ]));
            }
        };
    }
    Ok(variables)
}

/// The parser tells the text of the bad line, not its number.
fn line_of(file: &Path, bad: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().position(|line| line.trim() == bad.trim()).map_or(0, |index| index + 1)
}
