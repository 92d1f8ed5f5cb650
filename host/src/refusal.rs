//! The only place that turns a fault into HTTP: a status, a code and a sentence that say
//! what to do and leak nothing.

mod budget;

pub(crate) use budget::BudgetRefusal;
use budget::run_message;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use sluice_core::bound::Unbounded;
use sluice_core::fault::FaultClass;
use sluice_core::json::{Duplicate, ScanError, SpliceError};
use sluice_ledger::runs::RunRefused;

use crate::fault::{Fault, FaultKind, Said};
use crate::lane::Lane;
use crate::rates::OverRate;
use crate::stream::Body;

/// What others hold comes back soon, or not at all: seconds until it is worth another try.
const HELD_RETRY_S: u64 = 1;

/// Why a request gets no answer from a model.
#[derive(Debug)]
pub(crate) enum Refusal {
    NoSuchPath {
        path: String,
    },
    WrongMethod {
        allowed: &'static str,
    },
    /// A Host or Origin that is not this machine: a web page trying its luck.
    ForeignOrigin,
    BodyTooLarge {
        bytes_max: usize,
    },
    BodyEncoded,
    BodyBroken,
    /// The bodies of other requests take all the room that there is.
    NoRoom,
    NotJson(ScanError),
    Duplicate(Duplicate),
    Member {
        name: &'static str,
        wanted: &'static str,
    },
    NoSuchModel {
        model: String,
    },
    /// No version of this plugin is shut out.
    NothingToRelease {
        id: String,
    },
    NoSuchBreaker,
    /// The supervisor has more to do than it can take.
    Busy,
    /// An edit that the vendor needs does not fit this body.
    Unfit(SpliceError),
    /// The adapter says that this request cannot be served.
    Unserved {
        text: String,
    },
    /// The body did not arrive in time.
    UploadSlow {
        within: Duration,
    },
    /// The breakers of all targets are open.
    Resting {
        retry_after: Duration,
    },
    Upstream {
        upstream: String,
        fault: FaultKind,
    },
    /// The vendor's own error.
    Said(Box<Said>),
    /// The gateway is about to stop.
    Draining,
    /// A header that cannot be used.
    Header {
        name: &'static str,
        wanted: &'static str,
    },
    /// A budget wants to know the run.
    NoRun,
    /// A budget applies, and the model has no price.
    Unpriced {
        model: String,
    },
    /// A budget applies, and nobody can say what this call costs at most.
    Unbounded(Unbounded),
    /// An account does not have what it may cost.
    Budget(Box<BudgetRefusal>),
    /// The run has ended, or is one too many.
    Run(Box<RunRefused>),
    /// A client's key that does not work, and why.
    Key {
        wrong: &'static str,
    },
    /// Not the admin key, or none is set and the operator is somewhere else.
    AdminKey {
        set: bool,
    },
    /// The key is not for this model.
    ModelNotAllowed {
        model: String,
    },
    /// A wish of an operator that cannot be met, and why.
    Admin {
        status: StatusCode,
        code: &'static str,
        text: String,
    },
    /// A rate is used up.
    OverRate(OverRate),
    /// Money cannot be written down now.
    Ledger {
        reason: &'static str,
    },
}

/// Status, type, code and the member in question, as OpenAI names them.
struct Face {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<String>,
}

impl Refusal {
    pub(crate) fn member(name: &'static str, wanted: &'static str) -> Refusal {
        Refusal::Member { name, wanted }
    }

    /// What the failure of the last attempt is for the client.
    pub(crate) fn of_fault(upstream: &str, fault: Fault) -> Refusal {
        match fault.said {
            Some(said) => Refusal::Said(said),
            None => Refusal::Upstream { upstream: upstream.into(), fault: fault.kind },
        }
    }

    /// No target may be asked: these lanes are open.
    pub(crate) fn resting<'a>(lanes: impl Iterator<Item = &'a Arc<Lane>>) -> Refusal {
        let first = lanes.filter_map(|lane| lane.opens_at()).min();
        let retry_after = first.map(|first| first.saturating_duration_since(Instant::now()));
        Refusal::Resting { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) }
    }

    /// The answer in OpenAI's envelope.
    pub(crate) fn into_response(self) -> Response<Body> {
        if let Refusal::Said(said) = self {
            let mut response = Response::new(Body::full(said.body));
            (*response.status_mut(), *response.headers_mut()) = (said.status, said.headers);
            return response;
        }
        let face = self.face();
        let body = envelope(&self.message(), face.kind, face.param.as_deref(), face.code);
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = face.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Refusal::WrongMethod { allowed } = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Refusal::Budget(_)
        | Refusal::Run(_)
        | Refusal::Unpriced { .. }
        | Refusal::Unbounded(_)
        | Refusal::NoRun = self
        {
            // The SDKs would ask again at once, and be refused again.
            let retry =
                if matches!(&self, Refusal::Budget(budget) if !budget.exhausted) { "true" } else { "false" };
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static(retry));
        }
        response
    }

    /// Whole seconds after which it would be served, and never so early that it would be refused again.
    fn retry_after_s(&self) -> Option<u64> {
        if let Refusal::Resting { retry_after } = self {
            return Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0));
        }
        if let Refusal::Budget(budget) = self
            && budget.exhausted
        {
            return budget.resets_in_s;
        }
        if let Refusal::OverRate(over) = self {
            return over.wait.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        }
        matches!(self, Refusal::Budget(_) | Refusal::Ledger { .. } | Refusal::NoRoom).then_some(HELD_RETRY_S)
    }

    /// It would be served after this time.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.retry_after_s().map(Duration::from_secs)
    }

    /// The code, for the log.
    pub(crate) fn code(&self) -> &'static str {
        self.face().code
    }

    fn face(&self) -> Face {
        let client = |status, code| Face { status, kind: "invalid_request_error", code, param: None };
        let server = |status, code| Face { status, kind: "server_error", code, param: None };
        match self {
            Refusal::NoSuchPath { .. } => client(StatusCode::NOT_FOUND, "unknown_path"),
            Refusal::WrongMethod { .. } => client(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Refusal::ForeignOrigin => client(StatusCode::FORBIDDEN, "foreign_origin"),
            Refusal::BodyTooLarge { .. } => client(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Refusal::BodyEncoded => client(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_encoded"),
            Refusal::BodyBroken => client(StatusCode::BAD_REQUEST, "body_incomplete"),
            Refusal::NotJson(_) => client(StatusCode::BAD_REQUEST, "invalid_json"),
            Refusal::Duplicate(duplicate) => Face {
                param: Some(member_name(duplicate.at.as_str())),
                ..client(StatusCode::BAD_REQUEST, "duplicate_member")
            },
            Refusal::Member { name, .. } => {
                Face { param: Some((*name).into()), ..client(StatusCode::BAD_REQUEST, "invalid_member") }
            }
            Refusal::NoSuchModel { .. } => {
                Face { param: Some("model".into()), ..client(StatusCode::NOT_FOUND, "model_not_found") }
            }
            Refusal::NothingToRelease { .. } => client(StatusCode::NOT_FOUND, "nothing_to_release"),
            Refusal::NoSuchBreaker => client(StatusCode::NOT_FOUND, "no_such_breaker"),
            Refusal::Busy => server(StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Refusal::Unfit(_) => client(StatusCode::BAD_REQUEST, "unfit_body"),
            Refusal::Unserved { .. } => client(StatusCode::BAD_REQUEST, "unsupported_request"),
            Refusal::NoRoom => server(StatusCode::SERVICE_UNAVAILABLE, "no_room"),
            Refusal::UploadSlow { .. } => client(StatusCode::REQUEST_TIMEOUT, "timeout_upload"),
            Refusal::Resting { .. } => server(StatusCode::SERVICE_UNAVAILABLE, "breaker_open"),
            Refusal::Upstream { fault, .. } => match fault.class() {
                FaultClass::Caller => client(fault.status(), fault.code()),
                FaultClass::Policy
                | FaultClass::Provider
                | FaultClass::Throttled
                | FaultClass::Credential
                | FaultClass::Plugin => server(fault.status(), fault.code()),
            },
            Refusal::Said(said) => server(said.status, "upstream_error"),
            Refusal::Draining => server(StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Refusal::Header { .. } => client(StatusCode::BAD_REQUEST, "invalid_header"),
            Refusal::NoRun => client(StatusCode::BAD_REQUEST, "run_missing"),
            Refusal::Unpriced { .. } => client(StatusCode::PAYMENT_REQUIRED, "unpriced"),
            Refusal::Unbounded(_) => client(StatusCode::PAYMENT_REQUIRED, "unbounded_cost"),
            Refusal::Budget(budget) => budget_face(budget.exhausted),
            Refusal::Run(refused) => run_face(refused),
            Refusal::Key { .. } => {
                Face { kind: "authentication_error", ..client(StatusCode::UNAUTHORIZED, "invalid_api_key") }
            }
            Refusal::AdminKey { .. } => {
                Face { kind: "authentication_error", ..client(StatusCode::UNAUTHORIZED, "invalid_admin_key") }
            }
            Refusal::ModelNotAllowed { .. } => {
                Face { kind: "permission_error", ..client(StatusCode::FORBIDDEN, "model_not_allowed") }
            }
            Refusal::Admin { status, code, .. } => client(*status, code),
            Refusal::OverRate(_) => Face {
                kind: "rate_limit_error",
                ..client(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded")
            },
            Refusal::Ledger { .. } => server(StatusCode::SERVICE_UNAVAILABLE, "ledger_unavailable"),
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::NoSuchPath { path } => {
                format!("There is nothing at {path:?}. Chat completions are at /v1/chat/completions, models at /v1/models.")
            }
            Refusal::WrongMethod { allowed } => format!("This path takes {allowed}."),
            Refusal::ForeignOrigin => {
                "Host and Origin must be this machine (localhost, 127.0.0.1 or [::1]) while no key is required; of admin pages, while no admin key is set.".into()
            }
            Refusal::BodyTooLarge { bytes_max } => format!("The body is larger than {bytes_max} bytes."),
            Refusal::BodyEncoded => "Send the body without content-encoding.".into(),
            Refusal::BodyBroken => "The body did not arrive whole.".into(),
            Refusal::NoRoom => {
                "The gateway holds as many requests as it has room for (server.bodies_max); ask again in a moment.".into()
            }
            Refusal::NotJson(error) => format!("The body is not usable: {error}."),
            Refusal::Duplicate(duplicate) => {
                format!("The member {} is given twice; which one counts differs between vendors.", duplicate.at)
            }
            Refusal::Member { name, wanted } => format!("{name}: {wanted}."),
            Refusal::NoSuchModel { model } => {
                format!("The model {model:?} does not exist here; GET /v1/models lists those that do.")
            }
            Refusal::NothingToRelease { id } => {
                format!("No version of a plugin {id:?} is in quarantine; GET /admin/v1/plugins lists what is.")
            }
            Refusal::NoSuchBreaker => {
                "No such upstream and model has been asked; GET /admin/v1/breakers lists those that were.".into()
            }
            Refusal::Busy => "The gateway is busy with plugins; ask again in a moment.".into(),
            Refusal::Unfit(error) => format!("The body cannot be made fit for this vendor: {error}."),
            Refusal::Unserved { text } => text.clone(),
            Refusal::UploadSlow { within } => {
                format!("The body did not arrive within {} (server.timeouts.upload).", humantime::format_duration(*within))
            }
            Refusal::Resting { retry_after } => {
                let seconds = retry_after.as_secs() + 1;
                format!("Every target of this model rests after failures; the first is tried again in {seconds} s.")
            }
            Refusal::Said(_) => "The vendor refused.".into(),
            Refusal::Draining => "The gateway is about to stop.".into(),
            Refusal::Header { name, wanted } => format!("The header {name}: {wanted}."),
            Refusal::NoRun => "A budget is kept for each run: name it in the header x-sluice-run.".into(),
            Refusal::Unpriced { model } => {
                format!("The model {model:?} has no price here, and a budget applies: the operator sets a price for its targets.")
            }
            Refusal::Unbounded(why) => format!("A budget applies, and what this request costs has no bound: {why}."),
            Refusal::Budget(budget) => budget.message(),
            Refusal::Run(refused) => run_message(refused),
            Refusal::OverRate(over) => over.message(),
            Refusal::Key { wrong } => format!("The API key {wrong}."),
            Refusal::AdminKey { set: true } => "The admin key is missing or wrong: send it as `authorization: Bearer KEY`.".into(),
            Refusal::AdminKey { set: false } => "No admin key is set ([admin] key), so these pages are for the machine itself.".into(),
            Refusal::ModelNotAllowed { model } => format!("This API key is not for the model {model:?}."),
            Refusal::Admin { text, .. } => text.clone(),
            Refusal::Ledger { reason } => {
                format!("Spending cannot be written down now ({reason}), so nothing new is spent; ask again in a moment.")
            }
            Refusal::Upstream { upstream, fault } => format!("The upstream {upstream} {}.", fault.sentence()),
        }
    }
}

/// What a budget answers: nothing comes back, or something may.
fn budget_face(exhausted: bool) -> Face {
    let (status, kind, code) = match exhausted {
        true => (StatusCode::PAYMENT_REQUIRED, "insufficient_quota", "budget_exhausted"),
        false => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "budget_held"),
    };
    Face { status, kind, code, param: None }
}

/// Of a run that is not drawn on.
fn run_face(refused: &RunRefused) -> Face {
    let (status, kind, code) = match refused {
        RunRefused::Ended { .. } => (StatusCode::PAYMENT_REQUIRED, "insufficient_quota", "run_closed"),
        RunRefused::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_runs"),
    };
    Face { status, kind, code, param: None }
}

/// OpenAI's envelope of an error.
pub(crate) fn envelope(message: &str, kind: &str, param: Option<&str>, code: &str) -> Bytes {
    let error = json!({"message": message, "type": kind, "param": param, "code": code});
    json!({ "error": error }).to_string().into()
}

/// The end of a stream that broke after its first content: the SDKs raise an error at it.
pub(crate) fn error_event(upstream: &str, fault: &FaultKind) -> Bytes {
    let message = format!("The upstream {upstream} {}.", fault.sentence());
    let envelope = envelope(&message, "server_error", None, fault.code());
    [b"data: ".as_slice(), &envelope, b"\n\n"].concat().into()
}

/// `/stream_options/x` as OpenAI writes it: `stream_options.x`.
fn member_name(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}
