//! The API under `/_simulate/`: scripts in, books out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::books::{Books, Goal};
use crate::market::Markets;
use crate::script::{Script, Scripts};

const PREFIX: &str = "/_simulate/";

/// Most bytes of a script: 16 MiB, for replies longer than any real one.
const SCRIPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest wait for the books to reach a goal: 10 s. They are shown then as
/// they are, so that a test fails on what it sees and not on a timeout.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Control {
    books: Arc<Books>,
    scripts: Arc<Scripts>,
    markets: Arc<Markets>,
}

/// Why a control request is not obeyed: a status and a sentence.
struct Misuse(StatusCode, String);

/// What `GET /_simulate/books` asks for.
#[derive(Default)]
struct BooksQuery<'a> {
    vendor: Option<&'a str>,
    goal: Option<Goal>,
}

// === impl Control ===

impl Control {
    pub(crate) fn new(books: Arc<Books>, scripts: Arc<Scripts>, markets: Arc<Markets>) -> Control {
        Control { books, scripts, markets }
    }

    pub(crate) fn is_asked(path: &str) -> bool {
        path.starts_with(PREFIX)
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.obey(request).await {
            Ok(response) => response,
            Err(Misuse(status, message)) => respond(status, json!({ "error": message }).to_string()),
        }
    }

    async fn obey(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Misuse> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
        if let Some(path) = path.strip_prefix("markets/") {
            return self.obey_for_market(&parts, path, body).await;
        }
        match (&parts.method, path, path.strip_prefix("vendors/")) {
            (&Method::GET, "books", _) => self.show(parts.uri.query().unwrap_or_default()).await,
            (&Method::DELETE, "books", _) => {
                self.books.clear();
                Ok(respond(StatusCode::NO_CONTENT, String::new()))
            }
            (&Method::PUT, _, Some(name)) => {
                let name = plain_name(name)?;
                let script: Script = read_script(body).await?;
                let full = |_| Misuse(StatusCode::BAD_REQUEST, "too many vendors have a script".to_owned());
                self.scripts.set(name, script).map_err(full)?;
                Ok(respond(StatusCode::NO_CONTENT, String::new()))
            }
            (&Method::DELETE, _, Some(name)) => {
                self.scripts.reset(plain_name(name)?);
                Ok(respond(StatusCode::NO_CONTENT, String::new()))
            }
            (method, ..) => {
                Err(Misuse(StatusCode::NOT_FOUND, format!("there is no {method} {PREFIX}{path}")))
            }
        }
    }

    /// `NAME`, `NAME/instances` or `NAME/books`.
    async fn obey_for_market(
        &self,
        parts: &http::request::Parts,
        path: &str,
        body: Incoming,
    ) -> Result<Response<Full<Bytes>>, Misuse> {
        let (name, what) = path.split_once('/').unwrap_or((path, ""));
        let name = plain_name(name)?;
        let misuse = |message| Misuse(StatusCode::BAD_REQUEST, message);
        let unknown = || Misuse(StatusCode::NOT_FOUND, format!("there is no market {name:?}"));
        match (&parts.method, what) {
            (&Method::PUT, "") => {
                let script = read_script(body).await?;
                self.markets.open(name, script).map_err(misuse)?;
                Ok(respond(StatusCode::NO_CONTENT, String::new()))
            }
            (&Method::DELETE, "") => {
                self.markets.close(name);
                Ok(respond(StatusCode::NO_CONTENT, String::new()))
            }
            (&Method::POST, "instances") => {
                let running = self.markets.get(name).ok_or_else(unknown)?;
                let id = running.give(&read_script(body).await?).map_err(misuse)?;
                Ok(respond(StatusCode::CREATED, json!({ "id": id }).to_string()))
            }
            (&Method::GET, "books") => {
                let market = Arc::clone(&self.markets.get(name).ok_or_else(unknown)?.market);
                if let Some(instances) = finals_wanted(parts.uri.query().unwrap_or_default())? {
                    // Reached or not, the answer is what there is.
                    let _ = tokio::time::timeout(WAIT_MAX, market.books_when_final(instances)).await;
                }
                shown(&market.books())
            }
            (method, _) => {
                Err(Misuse(StatusCode::NOT_FOUND, format!("there is no {method} {PREFIX}markets/{path}")))
            }
        }
    }

    async fn show(&self, query: &str) -> Result<Response<Full<Bytes>>, Misuse> {
        let BooksQuery { vendor, goal } = BooksQuery::parse(query)?;
        if let Some(goal) = goal {
            // Reached or not, the answer is what there is.
            let _ = tokio::time::timeout(WAIT_MAX, self.books.wait(vendor, goal)).await;
        }
        shown(&self.books.snapshot(vendor))
    }
}

// === impl BooksQuery ===

impl BooksQuery<'_> {
    fn parse(query: &str) -> Result<BooksQuery<'_>, Misuse> {
        let mut parsed = BooksQuery::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number = || {
                let misuse =
                    || Misuse(StatusCode::BAD_REQUEST, format!("{name} is {value:?}, want a number"));
                value.parse().map_err(|_| misuse())
            };
            match name {
                "vendor" => parsed.vendor = Some(value),
                "arrived" => parsed.goal = Some(Goal::Arrived(number()?)),
                "finished" => parsed.goal = Some(Goal::Finished(number()?)),
                _ => {
                    let message = format!("unknown parameter `{name}`, want vendor, arrived or finished");
                    return Err(Misuse(StatusCode::BAD_REQUEST, message));
                }
            }
        }
        Ok(parsed)
    }
}

/// How many final instances the books of a market are to be shown with.
fn finals_wanted(query: &str) -> Result<Option<usize>, Misuse> {
    let misuse = |message| Misuse(StatusCode::BAD_REQUEST, message);
    match query.split_once('=') {
        None if query.is_empty() => Ok(None),
        Some(("final", number)) => match number.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(misuse(format!("final is {number:?}, want a number"))),
        },
        None | Some(_) => Err(misuse(format!("unknown parameter in `{query}`, want final"))),
    }
}

fn shown(books: &impl Serialize) -> Result<Response<Full<Bytes>>, Misuse> {
    match serde_json::to_string(books) {
        Ok(json) => Ok(respond(StatusCode::OK, json)),
        Err(error) => Err(Misuse(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the books: {error}"))),
    }
}

/// A name that can stand in a path as it is.
fn plain_name(name: &str) -> Result<&str, Misuse> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(allowed) {
        return Ok(name);
    }
    let message = format!("{name:?} is not a name, want letters, digits, - and _");
    Err(Misuse(StatusCode::BAD_REQUEST, message))
}

async fn read_script<T: DeserializeOwned>(body: Incoming) -> Result<T, Misuse> {
    let misuse = |message: String| Misuse(StatusCode::BAD_REQUEST, message);
    let body = Limited::new(body, SCRIPT_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| misuse(format!("reading the script: {error}")))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| misuse(error.to_string()))
}

fn respond(status: StatusCode, json: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
