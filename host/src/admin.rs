//! What operators and clients may look at and do: health, models, plugins, metrics.

mod rows;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::auth::{self, Known};
use crate::caller::Caller;
use crate::key_book::KeyBook;
use crate::ledger_pages::Desk;
use crate::market;
use crate::measures::Measures;
use crate::metrics;
use crate::money::{self, Money};
use crate::refusal::Refusal;
use crate::snapshot::{Current, Snapshot};
use crate::stream::Body;
use crate::supervisor::{Handle, Released};
use crate::workers::Workers;

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
    market: Option<market::View>,
    workers: Workers,
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
    Endpoint,
    /// What is kept in the data folder.
    Kept(Kept<'a>),
}

enum Kept<'a> {
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
    Market,
}

impl Admin {
    /// `started_s`: seconds since the Unix epoch, the age of all models.
    pub(crate) fn new(
        current: Current,
        supervisor: Handle,
        measures: Measures,
        kept: Option<(Arc<Money>, Arc<KeyBook>)>,
        market: Option<market::View>,
        workers: Workers,
        started_s: u64,
    ) -> Admin {
        let draining = AtomicBool::new(false);
        Admin { current, supervisor, measures, kept, market, workers, started_s, draining }
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
            "/v1/completions/healthcheck" => Name::Endpoint,
            "/ready" => Name::Ready,
            "/metrics" => Name::Metrics,
            "/v1/models" => Name::Models,
            "/admin/v1/plugins" => Name::Plugins,
            "/admin/v1/config" => Name::Config,
            "/admin/v1/breakers" => Name::Breakers,
            "/admin/v1/keys" if method == Method::POST => Name::Kept(Kept::CreateKey),
            "/admin/v1/keys" => Name::Kept(Kept::Keys),
            "/admin/v1/audit" => Name::Kept(Kept::Audit),
            "/admin/v1/usage" => Name::Kept(Kept::Usage),
            "/admin/v1/budgets" => Name::Kept(Kept::Budgets),
            "/admin/v1/runs" => Name::Kept(Kept::Runs),
            "/admin/v1/runs/close" => Name::Kept(Kept::CloseRun),
            "/admin/v1/in-doubt" => Name::Kept(Kept::Doubts),
            "/admin/v1/market" => Name::Kept(Kept::Market),
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
        !matches!(self.name, Name::Health | Name::Endpoint | Name::Ready | Name::Models | Name::Model(_))
    }

    /// The one method that it takes.
    pub(crate) fn method(&self) -> Method {
        match &self.name {
            Name::Release(_) | Name::ResetBreaker(..) => Method::POST,
            Name::Kept(kept) if kept.is_act() => Method::POST,
            Name::Health
            | Name::Ready
            | Name::Metrics
            | Name::Models
            | Name::Model(_)
            | Name::Plugins
            | Name::Config
            | Name::Breakers
            | Name::Endpoint
            | Name::Kept(_) => Method::GET,
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
            Name::Models | Name::Model(_) => {
                auth::caller(access, Known { keys, jobs: None }, &head.headers, peer)?
            }
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
        let body = match &self.name {
            Name::Health => json!({"status": "healthy"}),
            Name::Ready if self.admin.is_draining() => return Err(Refusal::Draining),
            Name::Ready => {
                json!({"status": "ready", "models": routes.models().len(), "upstreams": routes.upstreams().len()})
            }
            Name::Metrics => {
                let transitions = self.admin.supervisor.transitions();
                let text = metrics::text(
                    &snapshot,
                    transitions,
                    &self.admin.measures,
                    money.map(|money| &**money),
                    self.admin.market.as_ref(),
                    &self.admin.workers,
                );
                return Ok(page(text, metrics::CONTENT_TYPE));
            }
            Name::Models => self.admin.models(&snapshot, &caller),
            Name::Model(name) => match routes.model(name).filter(|_| caller.allows_model(name)) {
                Some(_) => self.admin.model_row(name),
                None => return Err(Refusal::NoSuchModel { model: name.chars().take(128).collect() }),
            },
            Name::Plugins => rows::plugins(&snapshot),
            Name::Config => rows::config(&snapshot),
            Name::Release(id) => {
                let released = self.admin.release(id).await;
                noted(desk().ok(), "plugin.release", id, released).await?
            }
            Name::Breakers => rows::breakers(&snapshot),
            Name::ResetBreaker(upstream, model) => {
                let model = percent_decode_str(model).decode_utf8_lossy();
                let reset = rows::reset_breaker(&snapshot, upstream, &model);
                noted(desk().ok(), "breaker.reset", &format!("{upstream}/{model}"), reset).await?
            }
            Name::Endpoint => {
                let mut answer = page(json!({"status": "healthy"}).to_string(), JSON);
                let ours = self.admin.market.as_ref().map(|market| market.jobs.passes().probe());
                let ours = ours.and_then(|ours| HeaderValue::try_from(ours).ok());
                answer.headers_mut().extend(ours.map(|ours| (market::ENDPOINT_HEADER, ours)));
                return Ok(answer);
            }
            Name::Kept(name) => return self.kept(name, &desk()?, query, body).await,
        };
        Ok(page(body.to_string(), JSON))
    }

    /// Of keys and money.
    async fn kept(
        &self,
        kept: &Kept<'_>,
        desk: &Desk<'_>,
        query: &str,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let answer = match kept {
            Kept::Keys => desk.keys().await?,
            Kept::CreateKey => {
                let row = desk.create(&text_of(body).await?).await?;
                let mut answer = page(row.to_string(), JSON);
                *answer.status_mut() = StatusCode::CREATED;
                return Ok(answer);
            }
            Kept::RevokeKey(id) => desk.revoke(id).await?,
            Kept::RotateKey(id) => desk.rotate(id, &text_of(body).await?).await?,
            Kept::Audit => desk.audit(query).await?,
            Kept::Usage => desk.usage(query).await?,
            Kept::Budgets => desk.budgets().await?,
            Kept::Runs => desk.runs(query).await?,
            Kept::CloseRun => desk.close_run(&text_of(body).await?).await?,
            Kept::Doubts => desk.doubts().await?,
            Kept::ResolveDoubt(id) => desk.resolve(id, &text_of(body).await?).await?,
            Kept::Market => market::page(self.admin.market.as_ref(), desk, query).await?,
        };
        Ok(page(answer.to_string(), JSON))
    }
}

impl Kept<'_> {
    /// It changes something.
    fn is_act(&self) -> bool {
        match self {
            Kept::CreateKey
            | Kept::RevokeKey(_)
            | Kept::RotateKey(_)
            | Kept::CloseRun
            | Kept::ResolveDoubt(_) => true,
            Kept::Keys
            | Kept::Audit
            | Kept::Usage
            | Kept::Budgets
            | Kept::Runs
            | Kept::Doubts
            | Kept::Market => false,
        }
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
            (id, "revoke") => Some(Name::Kept(Kept::RevokeKey(id))),
            (id, "rotate") => Some(Name::Kept(Kept::RotateKey(id))),
            _ => None,
        };
    }
    if let Some(rest) = path.strip_prefix("/admin/v1/in-doubt/") {
        return rest
            .strip_suffix("/resolve")
            .filter(|id| !id.contains('/'))
            .map(|id| Name::Kept(Kept::ResolveDoubt(id)));
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
