//! What operators and clients may look at and do: health, models, plugins, metrics.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use sluice_core::breaker::Standing;
use sluice_runtime::{FileRow, Serving};

use crate::auth;
use crate::caller::Caller;
use crate::key_book::KeyBook;
use crate::lane::LaneView;
use crate::ledger_pages::Desk;
use crate::measures::Measures;
use crate::metrics;
use crate::money::{self, Money};
use crate::refusal::Refusal;
use crate::snapshot::{Current, Snapshot};
use crate::stream::Body;
use crate::supervisor::{Handle, Released};

const JSON: &str = "application/json";

/// What an operator sends, and in what time.
const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Looks at the snapshot of the moment, and asks the supervisor for what is to be changed.
pub(crate) struct Admin {
    current: Current,
    supervisor: Handle,
    measures: Measures,
    kept: Option<(Arc<Money>, Arc<KeyBook>)>,
    started_s: u64,
    draining: AtomicBool,
}

/// One page or act, found by its path.
pub(crate) struct Page<'a> {
    admin: &'a Admin,
    name: Name<'a>,
}

enum Name<'a> {
    Health,
    Ready,
    Metrics,
    Models,
    Model(&'a str),
    Plugins,
    Config,
    Release(&'a str),
    Breakers,
    /// Upstream and model.
    ResetBreaker(&'a str, &'a str),
    Keys,
    CreateKey,
    RevokeKey(&'a str),
    RotateKey(&'a str),
    Audit,
    Usage,
    Budgets,
    Runs,
    CloseRun,
    Doubts,
    ResolveDoubt(&'a str),
}

impl Admin {
    /// `started_s`: seconds since the Unix epoch, the age of all models.
    pub(crate) fn new(
        current: Current,
        supervisor: Handle,
        measures: Measures,
        kept: Option<(Arc<Money>, Arc<KeyBook>)>,
        started_s: u64,
    ) -> Admin {
        Admin { current, supervisor, measures, kept, started_s, draining: AtomicBool::new(false) }
    }

    /// From now on `/ready` says no.
    pub(crate) fn drains(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// `method`: what is asked for where a path takes two.
    pub(crate) fn page<'a>(&'a self, path: &'a str, method: &Method) -> Option<Page<'a>> {
        let name = match path {
            "/health" => Name::Health,
            "/ready" => Name::Ready,
            "/metrics" => Name::Metrics,
            "/v1/models" => Name::Models,
            "/admin/v1/plugins" => Name::Plugins,
            "/admin/v1/config" => Name::Config,
            "/admin/v1/breakers" => Name::Breakers,
            "/admin/v1/keys" if method == Method::POST => Name::CreateKey,
            "/admin/v1/keys" => Name::Keys,
            "/admin/v1/audit" => Name::Audit,
            "/admin/v1/usage" => Name::Usage,
            "/admin/v1/budgets" => Name::Budgets,
            "/admin/v1/runs" => Name::Runs,
            "/admin/v1/runs/close" => Name::CloseRun,
            "/admin/v1/in-doubt" => Name::Doubts,
            path => named(path)?,
        };
        Some(Page { admin: self, name })
    }

    fn model_row(&self, name: &str) -> Value {
        json!({"id": name, "object": "model", "created": self.started_s, "owned_by": "sluice"})
    }

    fn models(&self, snapshot: &Snapshot, caller: &Caller) -> Value {
        let models = snapshot.routes.models().iter().filter(|model| caller.allows_model(model.name.as_str()));
        let rows: Vec<Value> = models.map(|model| self.model_row(model.name.as_str())).collect();
        json!({"object": "list", "data": rows})
    }

    async fn release(&self, id: &str) -> Result<Value, Refusal> {
        match self.supervisor.release(id).await {
            Some(Released::LetIn { files }) => Ok(json!({"id": id, "released": true, "files_taken": files})),
            Some(Released::Nobody) => Err(Refusal::NothingToRelease { id: id.chars().take(64).collect() }),
            None => Err(Refusal::Busy),
        }
    }
}

impl Page<'_> {
    fn is_for_operators(&self) -> bool {
        !matches!(self.name, Name::Health | Name::Ready | Name::Models | Name::Model(_))
    }

    /// The one method that it takes.
    pub(crate) fn method(&self) -> Method {
        match self.name {
            Name::Release(_)
            | Name::ResetBreaker(..)
            | Name::CreateKey
            | Name::RevokeKey(_)
            | Name::RotateKey(_)
            | Name::CloseRun
            | Name::ResolveDoubt(_) => Method::POST,
            Name::Health
            | Name::Ready
            | Name::Metrics
            | Name::Models
            | Name::Model(_)
            | Name::Plugins
            | Name::Config
            | Name::Breakers
            | Name::Keys
            | Name::Audit
            | Name::Usage
            | Name::Budgets
            | Name::Runs
            | Name::Doubts => Method::GET,
        }
    }

    pub(crate) async fn answer(
        &self,
        head: &Parts,
        body: Incoming,
        peer: IpAddr,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot: Arc<Snapshot> = self.admin.current.load_full();
        let (routes, access) = (&snapshot.routes, &snapshot.config.access);
        if self.is_for_operators() {
            auth::admin(access, &head.uri, &head.headers, peer)?;
        }
        let (money, keys) = self.admin.kept.as_ref().map(|(money, keys)| (money, keys)).unzip();
        let caller = match self.name {
            Name::Models | Name::Model(_) => auth::caller(access, keys, &head.headers, peer)?,
            _ => Caller::default(),
        };
        let desk = || match money.zip(keys) {
            Some((money, keys)) => Ok(Desk {
                money,
                keys,
                actor: auth::actor(access, &head.headers, peer),
                scopes: money::scopes(&snapshot.config.budgets),
            }),
            None => Err(Refusal::Ledger { reason: "closed" }),
        };
        let query = head.uri.query().unwrap_or_default();
        let body = match self.name {
            Name::Health => json!({"status": "healthy"}),
            Name::Ready if self.admin.is_draining() => return Err(Refusal::Draining),
            Name::Ready => {
                json!({"status": "ready", "models": routes.models().len(), "upstreams": routes.upstreams().len()})
            }
            Name::Metrics => {
                let transitions = self.admin.supervisor.transitions();
                let text =
                    metrics::text(&snapshot, transitions, &self.admin.measures, money.map(|money| &**money));
                return Ok(page(text, metrics::CONTENT_TYPE));
            }
            Name::Models => self.admin.models(&snapshot, &caller),
            Name::Model(name) => match routes.model(name).filter(|_| caller.allows_model(name)) {
                Some(_) => self.admin.model_row(name),
                None => return Err(Refusal::NoSuchModel { model: name.chars().take(128).collect() }),
            },
            Name::Plugins => plugins(&snapshot),
            Name::Config => config(&snapshot),
            Name::Release(id) => {
                let released = self.admin.release(id).await;
                noted(desk().ok(), "plugin.release", id, released).await?
            }
            Name::Breakers => breakers(&snapshot),
            Name::ResetBreaker(upstream, model) => {
                let model = percent_decode_str(model).decode_utf8_lossy();
                let reset = reset_breaker(&snapshot, upstream, &model);
                noted(desk().ok(), "breaker.reset", &format!("{upstream}/{model}"), reset).await?
            }
            Name::Keys => desk()?.keys().await?,
            Name::CreateKey => {
                let row = desk()?.create(&text_of(body).await?).await?;
                let mut answer = page(row.to_string(), JSON);
                *answer.status_mut() = StatusCode::CREATED;
                return Ok(answer);
            }
            Name::RevokeKey(id) => desk()?.revoke(id).await?,
            Name::RotateKey(id) => desk()?.rotate(id, &text_of(body).await?).await?,
            Name::Audit => desk()?.audit(query).await?,
            Name::Usage => desk()?.usage(query).await?,
            Name::Budgets => desk()?.budgets().await?,
            Name::Runs => desk()?.runs(query).await?,
            Name::CloseRun => desk()?.close_run(&text_of(body).await?).await?,
            Name::Doubts => desk()?.doubts().await?,
            Name::ResolveDoubt(id) => desk()?.resolve(id, &text_of(body).await?).await?,
        };
        Ok(page(body.to_string(), JSON))
    }
}

/// What came of an act goes into the audit, where there is one.
async fn noted(
    desk: Option<Desk<'_>>,
    act: &'static str,
    subject: &str,
    came: Result<Value, Refusal>,
) -> Result<Value, Refusal> {
    if let Some(desk) = desk {
        desk.note(act, subject, came.as_ref().map_or_else(Refusal::code, |_| "done")).await;
    }
    came
}

/// Pages whose path has a name in it.
fn named(path: &str) -> Option<Name<'_>> {
    if let Some(rest) = path.strip_prefix("/admin/v1/plugins/") {
        return rest.strip_suffix("/release").filter(|id| !id.contains('/')).map(Name::Release);
    }
    if let Some(rest) = path.strip_prefix("/admin/v1/keys/") {
        return match rest.split_once('/')? {
            (id, "revoke") => Some(Name::RevokeKey(id)),
            (id, "rotate") => Some(Name::RotateKey(id)),
            _ => None,
        };
    }
    if let Some(rest) = path.strip_prefix("/admin/v1/in-doubt/") {
        return rest.strip_suffix("/resolve").filter(|id| !id.contains('/')).map(Name::ResolveDoubt);
    }
    if let Some(rest) = path.strip_prefix("/admin/v1/breakers/") {
        // A model's name may have slashes.
        return rest
            .strip_suffix("/reset")?
            .split_once('/')
            .map(|(upstream, model)| Name::ResetBreaker(upstream, model));
    }
    path.strip_prefix("/v1/models/").filter(|name| !name.is_empty()).map(Name::Model)
}

/// What an operator sends: small.
async fn text_of(body: Incoming) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_WITHIN, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(Refusal::BodyTooLarge { bytes_max: BODY_BYTES_MAX }),
        Err(_elapsed) => Err(Refusal::UploadSlow { within: BODY_WITHIN }),
    }
}

fn page(text: String, content_type: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::full(Bytes::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn plugins(snapshot: &Snapshot) -> Value {
    let folder = &snapshot.folder;
    let plugins: Vec<Value> = snapshot.plugins.iter().map(|(id, serving)| plugin_row(id, serving)).collect();
    let files: Vec<Value> =
        folder.files.iter().map(|(file, row)| file_row(&file.display().to_string(), row)).collect();
    json!({
        "generation": snapshot.generation,
        "folder": {
            "dir": folder.dir, "unreadable": folder.unreadable, "files_not_looked_at": folder.beyond,
        },
        "plugins": plugins,
        "files": files,
    })
}

fn plugin_row(id: &str, serving: &Serving) -> Value {
    let plugin = &serving.plugin;
    let (manifest, counters) = (plugin.manifest(), plugin.counters());
    let call = |stats: sluice_runtime::CallStats| {
        (stats.function.to_owned(), json!({"count": stats.calls, "time_us": stats.time.as_micros() as u64}))
    };
    let calls: Map<String, Value> = counters.calls().into_iter().map(call).collect();
    let faults: Map<String, Value> =
        counters.faults().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let source =
        serving.file.as_ref().map_or_else(|| "built-in".to_owned(), |file| file.display().to_string());
    let grants: Vec<&str> = plugin.grants().iter().map(|grant| grant.name()).collect();
    let before = serving.trial.as_ref().map(|trial| trial.before.digest());
    json!({
        "id": id, "version": manifest.version, "kind": plugin.kind().name(), "doc": manifest.doc,
        "state": if before.is_some() { "probation" } else { "active" },
        "source": source, "digest": plugin.digest(), "generation": serving.generation, "replaced": before,
        "grants": grants, "calls": calls, "faults": faults,
        "log_messages_dropped": counters.log_messages_dropped(),
    })
}

fn file_row(file: &str, row: &FileRow) -> Value {
    json!({"file": file, "state": row.state.name(), "id": row.id, "digest": row.digest, "reason": row.reason})
}

fn config(snapshot: &Snapshot) -> Value {
    let state = &snapshot.config_state;
    json!({
        "file": snapshot.config.file,
        "generation": snapshot.generation,
        "state": if state.refused.is_some() { "refused" } else { "active" },
        "reason": state.refused,
        "needs_restart": state.needs_restart,
    })
}

fn breakers(snapshot: &Snapshot) -> Value {
    let now = Instant::now();
    let wall = SystemTime::now();
    let at = |instant: Instant| {
        humantime::format_rfc3339_millis(wall + instant.saturating_duration_since(now)).to_string()
    };
    let row = |view: LaneView| {
        let (reason, until) = match view.standing {
            Standing::Closed => (None, None),
            Standing::HalfOpen { why } => (Some(why.to_string()), None),
            Standing::Open { until, why } => (Some(why.to_string()), Some(at(until))),
        };
        let bench = view.bench.map(|bench| json!({"reason": bench.why.name(), "until": at(bench.until)}));
        json!({
            "upstream": view.lane.upstream, "model": view.lane.model, "state": view.standing.name(),
            "reason": reason, "probes_at": until, "rests": bench,
        })
    };
    let upstreams = snapshot.routes.upstreams().iter();
    let rows: Vec<Value> = upstreams.flat_map(|upstream| upstream.lanes.views(now)).map(row).collect();
    json!({ "breakers": rows })
}

fn reset_breaker(snapshot: &Snapshot, upstream: &str, model: &str) -> Result<Value, Refusal> {
    let mut upstreams = snapshot.routes.upstreams().iter();
    match upstreams.find(|known| known.name == upstream).is_some_and(|known| known.lanes.reset(model)) {
        true => Ok(json!({"upstream": upstream, "model": model, "state": "closed"})),
        false => Err(Refusal::NoSuchBreaker),
    }
}
