//! What a vendor says no with: a status, and what goes into the wire's envelope.

use http::StatusCode;

/// A request that the vendor does not serve. How it is written: `openai`, `anthropic`.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The error's type; without it, what the wire has for the status.
    pub(crate) kind: Option<String>,
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
}

impl Refusal {
    /// The request is wrong; `param` names the member to blame, if there is one.
    pub(crate) fn bad_request(message: impl Into<String>, param: Option<&'static str>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message.into(), param, None)
    }

    /// There is no key where it belongs.
    pub(crate) fn no_key(place: &str) -> Refusal {
        let message = format!("You didn't provide an API key. Send it in {place}.");
        Refusal::new(StatusCode::UNAUTHORIZED, message, None, None)
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
        let code = match status.as_u16() {
            401 => Some("invalid_api_key"),
            429 => Some("rate_limit_exceeded"),
            _ => None,
        };
        let message = format!("The simulated vendor was told to answer {}.", status.as_u16());
        Refusal::new(status, message, None, code)
    }

    /// An error of this type, if one is given, under a status that says that all is well.
    pub(crate) fn belated(kind: Option<String>, status: StatusCode) -> Refusal {
        let message = "The simulated vendor was told to fail after it said 200.".to_owned();
        Refusal { kind, ..Refusal::new(status, message, None, None) }
    }

    fn new(
        status: StatusCode,
        message: String,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> Refusal {
        Refusal { status, message, kind: None, param, code }
    }
}
