//! How the market says no: a status and `{"detail": …}`, as FastAPI writes it.

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// A request that the market does not serve.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    detail: Detail,
}

/// One thing wrong with a body, a query or a path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FieldError {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Where: `body`, `query` or `path`, and a name.
    pub(crate) loc: Vec<String>,
    pub(crate) msg: String,
    pub(crate) input: Value,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Detail {
    Text(String),
    Errors(Vec<FieldError>),
}

// === impl Refused ===

impl Refused {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Refused {
        Refused { status, detail: Detail::Text(detail.into()) }
    }

    /// The request is not right: 422, with what is wrong in it.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Refused {
        Refused { status: StatusCode::UNPROCESSABLE_ENTITY, detail: Detail::Errors(errors) }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unauthorized(detail: &str) -> Refused {
        Refused::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn forbidden(detail: &str) -> Refused {
        Refused::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn not_found(detail: &str) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, detail)
    }

    /// The answer's body.
    pub(crate) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            detail: &'a Detail,
        }
        // Texts and values alone: there is nothing that cannot be written.
        serde_json::to_string(&Body { detail: &self.detail }).unwrap_or_default()
    }
}

// === impl FieldError ===

impl FieldError {
    pub(crate) fn new(kind: &'static str, loc: &[&str], msg: impl Into<String>, input: Value) -> FieldError {
        let loc = loc.iter().map(|place| (*place).to_owned()).collect();
        FieldError { kind, loc, msg: msg.into(), input }
    }
}
