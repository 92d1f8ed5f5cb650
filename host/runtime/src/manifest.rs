//! Who a plugin says it is, checked.

use std::collections::BTreeMap;

use sluice_core::plan::{self, PlanBreach, Route, RouteError};

/// Characters of an id at most.
const ID_CHARS_MAX: usize = 64;

/// Routes, headers or slots that one manifest may declare.
const DECLARED_MAX: usize = 64;

/// Bytes of the texts in a manifest.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A manifest that makes sense.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub id: String,
    pub version: String,
    pub doc: String,
    pub surfaces: Vec<u16>,
    pub slots: Vec<SecretSlot>,
    /// JSON Schema of the configuration; empty accepts only `{}`.
    pub config_schema: String,
    pub(crate) declared: plan::Declared,
}

/// A secret that the plugin's calls may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSlot {
    pub name: String,
    pub required: bool,
    pub doc: String,
}

/// A manifest as the plugin wrote it.
pub(crate) struct Declared {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) doc: String,
    pub(crate) surfaces: Vec<u16>,
    pub(crate) secrets: Vec<(String, bool, String)>,
    pub(crate) routes: Vec<(u16, String, String)>,
    pub(crate) headers: Vec<String>,
    pub(crate) config_schema: String,
}

/// What is wrong with a manifest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("id {0:?}: wanted 1 to {ID_CHARS_MAX} lower-case letters, digits and hyphens")]
    Id(String),
    #[error("version {0:?}: wanted a semantic version such as 1.2.3")]
    Version(String),
    #[error("a list or text in it is too long")]
    TooLong,
    #[error("secret slot {0:?}: wanted lower-case letters, digits and hyphens, each name once")]
    Slot(String),
    #[error("route: {0}")]
    Route(#[from] RouteError),
    #[error("{0}")]
    Header(#[from] PlanBreach),
    #[error("config schema: it is not JSON")]
    Schema,
}

impl Manifest {
    pub(crate) fn check(declared: Declared) -> Result<Manifest, ManifestError> {
        let lists =
            [declared.secrets.len(), declared.routes.len(), declared.headers.len(), declared.surfaces.len()];
        let texts = [declared.doc.len(), declared.config_schema.len(), declared.version.len()];
        if lists.iter().any(|len| *len > DECLARED_MAX) || texts.iter().any(|len| *len > TEXT_BYTES_MAX) {
            return Err(ManifestError::TooLong);
        }
        if !is_name(&declared.id) {
            return Err(ManifestError::Id(declared.id));
        }
        if semver::Version::parse(&declared.version).is_err() {
            return Err(ManifestError::Version(declared.version));
        }
        let schema = &declared.config_schema;
        if !schema.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(schema).is_err() {
            return Err(ManifestError::Schema);
        }
        let mut calls = plan::Declared::default();
        for (endpoint, method, path) in &declared.routes {
            calls.routes.push(Route::parse(*endpoint, method, path)?);
        }
        for header in declared.headers {
            plan::check_declared_header(&header)?;
            calls.headers.push(header);
        }
        calls.slots = slots(&declared.secrets)?;
        let slot = |(name, required, doc)| SecretSlot { name, required, doc };
        Ok(Manifest {
            id: declared.id,
            version: declared.version,
            doc: declared.doc,
            surfaces: declared.surfaces,
            slots: declared.secrets.into_iter().map(slot).collect(),
            config_schema: declared.config_schema,
            declared: calls,
        })
    }

    /// Whether this plugin's calls leave the host at all.
    pub fn has_routes(&self) -> bool {
        !self.declared.routes.is_empty()
    }
}

fn slots(secrets: &[(String, bool, String)]) -> Result<BTreeMap<String, bool>, ManifestError> {
    let mut slots = BTreeMap::new();
    for (name, required, _) in secrets {
        if !is_name(name) || slots.insert(name.clone(), *required).is_some() {
            return Err(ManifestError::Slot(name.clone()));
        }
    }
    Ok(slots)
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed)
}
