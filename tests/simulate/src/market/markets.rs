//! All markets of this process, by name, and the way to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::market::api;
use crate::market::detail::Refused;
use crate::market::running::Running;
use crate::market::script::MarketScript;

const PREFIX: &str = "/_market/";

/// Most markets at once: 100. A test plays one or two.
const MARKETS_MAX: usize = 100;

#[derive(Default)]
pub(crate) struct Markets {
    by_name: Mutex<HashMap<String, Arc<Running>>>,
}

// === impl Markets ===

impl Markets {
    pub(crate) fn is_asked(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    /// Opens a market in place of the one of this name, of which nothing is left.
    pub(crate) fn open(&self, name: &str, script: MarketScript) -> Result<(), String> {
        script.check()?;
        let mut markets = self.lock();
        if markets.len() >= MARKETS_MAX && !markets.contains_key(name) {
            return Err(format!("there are {MARKETS_MAX} markets already"));
        }
        if let Some(old) = markets.insert(name.to_owned(), Running::start(name, script)) {
            old.end();
        }
        Ok(())
    }

    pub(crate) fn close(&self, name: &str) {
        if let Some(running) = self.lock().remove(name) {
            running.end();
        }
    }

    pub(crate) fn close_all(&self) {
        for (_name, running) in self.lock().drain() {
            running.end();
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Running>> {
        self.lock().get(name).cloned()
    }

    /// Answers a request to a market.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let (name, path) = path.split_once('/').unwrap_or((&path, ""));
        match self.get(name) {
            Some(running) => api::answer(&running, request, path).await,
            None => {
                let mut response =
                    Response::new(Full::new(Refused::not_found("No such market").json().into()));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Running>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
