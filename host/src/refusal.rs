//! The only place that turns a fault into HTTP: a status, a code and a sentence that say
//! what to do and leak nothing.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use sluice_core::json::{Duplicate, ScanError, SpliceError};
use sluice_runtime::{CallError, Refused};

use crate::stream::Body;

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
    /// The supervisor has more to do than it can take.
    Busy,
    /// An edit that the vendor needs does not fit this body.
    Unfit(SpliceError),
    /// The adapter says that this request cannot be served.
    Unserved {
        text: String,
    },
    /// The adapter failed; the cause is in the log and in the counters.
    Plugin {
        plugin: String,
    },
    Upstream {
        upstream: String,
        fault: UpstreamFault,
    },
}

/// How a vendor failed us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamFault {
    Unreachable,
    Silent,
    Broken,
    /// It wants us to go elsewhere; the gateway goes only where the operator said.
    Redirected,
    /// It does not take the operator's credential.
    Credential,
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

    /// What an adapter's failure is for the client.
    pub(crate) fn from_adapter(plugin: &str, error: CallError) -> Refusal {
        match error {
            CallError::Refused(Refused::InvalidRequest(text) | Refused::Unsupported(text)) => {
                Refusal::Unserved { text }
            }
            CallError::Refused(_) | CallError::Fault(..) => Refusal::Plugin { plugin: plugin.into() },
        }
    }

    /// The answer in OpenAI's envelope.
    pub(crate) fn into_response(self) -> Response<Body> {
        let face = self.face();
        let body = json!({"error": {
            "message": self.message(), "type": face.kind, "param": face.param, "code": face.code,
        }});
        let mut response = Response::new(Body::full(Bytes::from(body.to_string())));
        *response.status_mut() = face.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Refusal::WrongMethod { allowed } = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
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
            Refusal::Busy => server(StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Refusal::Unfit(_) => client(StatusCode::BAD_REQUEST, "unfit_body"),
            Refusal::Unserved { .. } => client(StatusCode::BAD_REQUEST, "unsupported_request"),
            Refusal::Plugin { .. } => server(StatusCode::BAD_GATEWAY, "plugin_fault"),
            Refusal::Upstream { fault, .. } => server(fault.status(), fault.code()),
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::NoSuchPath { path } => {
                format!("There is nothing at {path:?}. Chat completions are at /v1/chat/completions, models at /v1/models.")
            }
            Refusal::WrongMethod { allowed } => format!("This path takes {allowed}."),
            Refusal::ForeignOrigin => {
                "Host and Origin must be this machine (localhost, 127.0.0.1 or [::1]) while no key is required.".into()
            }
            Refusal::BodyTooLarge { bytes_max } => format!("The body is larger than {bytes_max} bytes."),
            Refusal::BodyEncoded => "Send the body without content-encoding.".into(),
            Refusal::BodyBroken => "The body did not arrive whole.".into(),
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
            Refusal::Busy => "The gateway is busy with plugins; ask again in a moment.".into(),
            Refusal::Unfit(error) => format!("The body cannot be made fit for this vendor: {error}."),
            Refusal::Unserved { text } => text.clone(),
            Refusal::Plugin { plugin } => {
                format!("The adapter {plugin} failed; the operator finds the cause at /admin/v1/plugins and in the log.")
            }
            Refusal::Upstream { upstream, fault } => format!("The upstream {upstream} {}.", fault.sentence()),
        }
    }
}

impl UpstreamFault {
    fn status(self) -> StatusCode {
        match self {
            UpstreamFault::Silent => StatusCode::GATEWAY_TIMEOUT,
            UpstreamFault::Unreachable
            | UpstreamFault::Broken
            | UpstreamFault::Redirected
            | UpstreamFault::Credential => StatusCode::BAD_GATEWAY,
        }
    }

    pub(crate) fn code(self) -> &'static str {
        match self {
            UpstreamFault::Unreachable => "upstream_unreachable",
            UpstreamFault::Silent => "upstream_silent",
            UpstreamFault::Broken => "upstream_broken",
            UpstreamFault::Redirected => "upstream_redirected",
            UpstreamFault::Credential => "upstream_refused_credential",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            UpstreamFault::Unreachable => "cannot be reached",
            UpstreamFault::Silent => "did not answer in time",
            UpstreamFault::Broken => "broke off before it answered",
            UpstreamFault::Redirected => {
                "answered with a redirect, which is not followed; its base_url needs a correction"
            }
            UpstreamFault::Credential => "does not take the operator's credential",
        }
    }
}

/// `/stream_options/x` as OpenAI writes it: `stream_options.x`.
fn member_name(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}
