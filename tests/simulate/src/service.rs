//! The path of a request, from its head to its answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::body::AnswerBody;
use crate::books::{Books, ConnectionEntry, Head};
use crate::connection::ResetSwitch;
use crate::control::Control;
use crate::delivery::Delivery;
use crate::fault::Fault;
use crate::lapse::Lapse;
use crate::market::Markets;
use crate::refusal::Refusal;
use crate::script::Scripts;
use crate::vendor::Vendor;
use crate::wire::Wire;

/// Most bytes of one request's body: 64 MiB, above what any vendor takes, so
/// that the gateway's own limit is the one that tests meet.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The vendor of paths without a prefix.
const VENDOR_DEFAULT: &str = "default";

pub(crate) type ResponseBody = Either<AnswerBody, Full<Bytes>>;

/// Serves the requests of one connection.
pub(crate) struct Service {
    control: Control,
    books: Arc<Books>,
    scripts: Arc<Scripts>,
    markets: Arc<Markets>,
    connection: ConnectionEntry,
    switch: Arc<ResetSwitch>,
}

/// The client left while it was sending its request.
#[derive(Debug)]
pub(crate) struct Gone;

/// What a path means to a vendor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// `POST` for an answer.
    Answers(Wire),
    Models,
    Unknown,
}

// === impl Service ===

impl Service {
    pub(crate) fn new(books: Arc<Books>, scripts: Arc<Scripts>, markets: Arc<Markets>) -> Service {
        Service {
            control: Control::new(Arc::clone(&books), Arc::clone(&scripts), Arc::clone(&markets)),
            connection: books.connection(),
            switch: Arc::default(),
            books,
            scripts,
            markets,
        }
    }

    /// Closes the connection with a reset when thrown.
    pub(crate) fn switch(&self) -> &Arc<ResetSwitch> {
        &self.switch
    }

    /// Answers one request. Its row is opened before its body is read, so that
    /// the books know of a client that never sent it all.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Gone> {
        if Control::is_asked(request.uri().path()) {
            self.connection.serves_control();
            return Ok(self.control.answer(request).await.map(Either::Right));
        }
        if Markets::is_asked(request.uri().path()) {
            self.connection.serves_control(); // the count is of the vendors' connections
            return Ok(self.markets.answer(request).await.map(Either::Right));
        }
        let (parts, body) = request.into_parts();
        let (vendor, endpoint) = endpoint(parts.uri.path());
        let head = Head { connection: self.connection.id(), vendor: vendor.to_owned(), parts };
        let entry = self.books.open(&head);
        let body = read(body).await?;
        if let Ok(body) = &body {
            entry.body(body);
        }
        let script = self.scripts.of(&head.vendor);
        let (method, headers) = (&head.parts.method, &head.parts.headers);
        let wire = match endpoint {
            Endpoint::Answers(wire) => wire,
            Endpoint::Models | Endpoint::Unknown => Wire::of(headers),
        };
        let vendor = Vendor { name: &head.vendor, wire, script: &script };
        let (plan, fault) = match (endpoint, method) {
            (Endpoint::Answers(_), &Method::POST) => {
                // Taken whatever is wrong with the request: the n-th request meets the n-th fault.
                let fault = self.scripts.next_fault(&head.vendor);
                let lapse = fault.as_ref().map(Lapse::from).unwrap_or_default();
                (body.and_then(|body| vendor.complete(headers, &body, &lapse, &entry)), fault)
            }
            (Endpoint::Models, &Method::GET) => (vendor.models(headers), None),
            (Endpoint::Answers(_) | Endpoint::Models, _) => (Err(Refusal::wrong_method(method)), None),
            (Endpoint::Unknown, _) => (Err(Refusal::unknown_path(method, head.parts.uri.path())), None),
        };
        if let Some(Fault::Wait { .. }) = fault {
            self.scripts.replaced(&head.vendor, &script).await;
        }
        let delivery = Delivery { wire, style: &script.sse, switch: &self.switch, entry };
        let answer = delivery.send(plan, fault).await;
        Ok(answer.map(Either::Left))
    }
}

/// Vendor and endpoint of `/v1/…` or `/VENDOR/v1/…`.
fn endpoint(path: &str) -> (&str, Endpoint) {
    let (vendor, rest) = match path.strip_prefix("/v1/") {
        Some(rest) => (VENDOR_DEFAULT, rest),
        None => match path.strip_prefix('/').and_then(|path| path.split_once("/v1/")) {
            Some((vendor, rest)) if !vendor.contains('/') => (vendor, rest),
            Some(_) | None => (VENDOR_DEFAULT, ""),
        },
    };
    let endpoint = match rest {
        "chat/completions" => Endpoint::Answers(Wire::OpenAi),
        "messages" => Endpoint::Answers(Wire::Anthropic),
        "models" => Endpoint::Models,
        _ => Endpoint::Unknown,
    };
    (vendor, endpoint)
}

/// The whole body, or why the vendor does not take it.
async fn read(body: Incoming) -> Result<Result<Bytes, Refusal>, Gone> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Refusal::too_large(BODY_BYTES_MAX))),
        Err(_) => Err(Gone),
    }
}

// === impl Gone ===

impl fmt::Display for Gone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the client left before its request was complete")
    }
}

impl Error for Gone {}
