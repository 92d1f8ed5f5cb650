//! What operators and clients may look at: health, models, plugins.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::{Value, json};
use sluice_runtime::{Plugin, Source};

use crate::gateway::Gateway;
use crate::plugins::Plugins;
use crate::refusal::Refusal;
use crate::routes::Model;
use crate::stream::Body;

/// Pages that only read.
pub(crate) struct Admin {
    plugins: Arc<Plugins>,
    started_s: u64,
}

/// One page, found by its path.
pub(crate) struct Page<'a> {
    admin: &'a Admin,
    name: Name<'a>,
}

enum Name<'a> {
    Health,
    Ready,
    Models,
    Model(&'a str),
    Plugins,
}

impl Admin {
    /// `started_s`: seconds since the Unix epoch, the age of all models.
    pub(crate) fn new(plugins: Arc<Plugins>, started_s: u64) -> Admin {
        Admin { plugins, started_s }
    }

    pub(crate) fn page<'a>(&'a self, path: &'a str) -> Option<Page<'a>> {
        let name = match path {
            "/health" => Name::Health,
            "/ready" => Name::Ready,
            "/v1/models" => Name::Models,
            "/admin/v1/plugins" => Name::Plugins,
            path => Name::Model(path.strip_prefix("/v1/models/").filter(|name| !name.is_empty())?),
        };
        Some(Page { admin: self, name })
    }

    fn plugins(&self) -> Value {
        let plugins: Vec<Value> = self.plugins.all().map(|plugin| plugin_row(plugin)).collect();
        let refused = self.plugins.refused().iter();
        let refused: Vec<Value> =
            refused.map(|refused| json!({"file": refused.file, "reason": refused.reason})).collect();
        json!({"plugins": plugins, "refused": refused})
    }

    fn models(&self, models: &[Arc<Model>]) -> Value {
        let rows: Vec<Value> = models.iter().map(|model| self.model_row(model.name.as_str())).collect();
        json!({"object": "list", "data": rows})
    }

    fn model_row(&self, name: &str) -> Value {
        json!({"id": name, "object": "model", "created": self.started_s, "owned_by": "sluice"})
    }
}

impl Page<'_> {
    pub(crate) fn answer(&self, gateway: &Gateway) -> Result<Response<Body>, Refusal> {
        let routes = gateway.routes();
        let body = match self.name {
            Name::Health => json!({"status": "healthy"}),
            Name::Ready => {
                json!({"status": "ready", "models": routes.models().len(), "upstreams": routes.upstreams().len()})
            }
            Name::Models => self.admin.models(routes.models()),
            Name::Model(name) => match routes.model(name) {
                Some(_) => self.admin.model_row(name),
                None => return Err(Refusal::NoSuchModel { model: name.chars().take(128).collect() }),
            },
            Name::Plugins => self.admin.plugins(),
        };
        let mut answer = Response::new(Body::full(Bytes::from(body.to_string())));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(answer)
    }
}

fn plugin_row(plugin: &Plugin) -> Value {
    let manifest = plugin.manifest();
    let counters = plugin.counters();
    let calls: serde_json::Map<String, Value> = counters
        .calls()
        .into_iter()
        .map(|stats| {
            (
                stats.function.to_owned(),
                json!({"count": stats.calls, "time_us": stats.time.as_micros() as u64}),
            )
        })
        .collect();
    let faults: serde_json::Map<String, Value> =
        counters.faults().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let source = match plugin.source() {
        Source::BuiltIn => "built-in".to_owned(),
        Source::File(file) => file.display().to_string(),
    };
    let grants: Vec<&str> = plugin.grants().iter().map(|grant| grant.name()).collect();
    json!({
        "id": manifest.id, "version": manifest.version, "kind": plugin.kind().name(), "doc": manifest.doc,
        "state": "active", "source": source, "digest": plugin.digest(), "grants": grants,
        "calls": calls, "faults": faults, "log_messages_dropped": counters.log_messages_dropped(),
    })
}
