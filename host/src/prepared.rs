//! A plan made ready to be sent, and kept for requests of the same shape.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use sluice_core::plan::CallPlan;
use sluice_runtime::Shape;
use url::Url;

/// Plans kept per upstream: shapes are few, but a glob lets clients name models at will.
const PLANS_MAX: usize = 1024;

/// A checked plan in the terms of the wire; only the secret is missing.
pub(crate) struct Prepared {
    pub(crate) plan: Arc<CallPlan>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

/// Plans that read nothing but the request's shape.
pub(crate) struct PlanCache(Cache<Key, Arc<Prepared>>);

#[derive(PartialEq, Eq)]
struct Key {
    shape: Shape,
    target_model: String,
}

/// A [`Key`] that owns nothing.
struct KeyRef<'a> {
    shape: &'a Shape,
    target_model: &'a str,
}

/// A plan whose parts, each allowed, make no request.
#[derive(Debug, thiserror::Error)]
#[error("the plan makes no request: {0}")]
pub(crate) struct NotARequest(&'static str);

impl Prepared {
    /// Whether the vendor would see no difference but in the body.
    pub(crate) fn sends_as(&self, other: &Prepared) -> bool {
        let of =
            |prepared: &Prepared| (prepared.method.clone(), prepared.uri.clone(), prepared.headers.clone());
        of(self) == of(other)
    }

    pub(crate) fn new(plan: Arc<CallPlan>, base_url: Option<&Url>) -> Result<Prepared, NotARequest> {
        let base = base_url.ok_or(NotARequest("its upstream has no base_url"))?;
        let mut url = base.clone();
        url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), plan.path));
        if !plan.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&plan.query);
        }
        // With the credential and the host: a map that grows is made anew.
        let mut headers = HeaderMap::with_capacity(plan.headers.len() + 3);
        for (name, value) in &plan.headers {
            let name = HeaderName::try_from(name).map_err(|_| NotARequest("a header's name"))?;
            let value = HeaderValue::try_from(value).map_err(|_| NotARequest("a header's value"))?;
            headers.insert(name, value);
        }
        // Usage and faults are read from the bytes that pass.
        headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let method = Method::try_from(plan.method.as_str()).map_err(|_| NotARequest("its method"))?;
        let uri = Uri::try_from(url.as_str()).map_err(|_| NotARequest("its address"))?;
        Ok(Prepared { plan, method, uri, headers })
    }
}

impl PlanCache {
    pub(crate) fn new() -> PlanCache {
        PlanCache(Cache::new(PLANS_MAX))
    }

    pub(crate) fn get(&self, shape: &Shape, target_model: &str) -> Option<Arc<Prepared>> {
        self.0.get(&KeyRef { shape, target_model })
    }

    pub(crate) fn insert(&self, shape: &Shape, target_model: &str, prepared: Arc<Prepared>) {
        self.0.insert(Key { shape: shape.clone(), target_model: target_model.into() }, prepared);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { shape: &self.shape, target_model: &self.target_model }.hash(state);
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shape.hash(state);
        self.target_model.hash(state);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.shape == key.shape && *self.target_model == key.target_model
    }
}
