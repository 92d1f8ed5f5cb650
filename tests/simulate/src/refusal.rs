//! What a vendor says no with: a status and OpenAI's error envelope.

use http::StatusCode;
use serde_json::{Value, json};

/// A request that the vendor does not serve.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Refusal {
    /// The request is wrong; `param` names the member to blame, if there is one.
    pub(crate) fn bad_request(message: impl Into<String>, param: Option<&'static str>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message.into(), param, None)
    }

    pub(crate) fn no_key() -> Refusal {
        let message = "You didn't provide an API key. Send it in an Authorization header, as a bearer.";
        Refusal::new(StatusCode::UNAUTHORIZED, message.to_owned(), None, None)
    }

    pub(crate) fn wrong_key() -> Refusal {
        let message = "Incorrect API key provided.".to_owned();
        Refusal::new(StatusCode::UNAUTHORIZED, message, None, Some("invalid_api_key"))
    }

    pub(crate) fn unknown_model(model: &str) -> Refusal {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Refusal::new(StatusCode::NOT_FOUND, message, None, Some("model_not_found"))
    }

    pub(crate) fn unknown_path(method: &http::Method, path: &str) -> Refusal {
        let message = format!("Invalid URL ({method} {path})");
        Refusal::new(StatusCode::NOT_FOUND, message, None, Some("unknown_url"))
    }

    pub(crate) fn wrong_method(method: &http::Method) -> Refusal {
        let message = format!("Not allowed to {method} on this URL.");
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message, None, Some("method_not_supported"))
    }

    pub(crate) fn too_large(bytes_max: usize) -> Refusal {
        let message = format!("The request body is larger than {bytes_max} bytes.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message, None, Some("request_too_large"))
    }

    /// What a scripted status says when the script gives no body.
    pub(crate) fn scripted(status: StatusCode) -> Refusal {
        let (kind, code) = match status.as_u16() {
            401 => ("invalid_request_error", Some("invalid_api_key")),
            429 => ("requests", Some("rate_limit_exceeded")),
            500.. => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        let message = format!("The simulated vendor was told to answer {}.", status.as_u16());
        Refusal { status, message, kind, param: None, code }
    }

    fn new(
        status: StatusCode,
        message: String,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> Refusal {
        Refusal { status, message, kind: "invalid_request_error", param, code }
    }

    /// OpenAI's error envelope.
    pub(crate) fn envelope(&self) -> Value {
        let Refusal { status: _, message, kind, param, code } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}
