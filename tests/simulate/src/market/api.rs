//! The market's API: the path of a request from its head to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::Value;

use crate::market::detail::{FieldError, Refused};
use crate::market::fault::ApiFaultKind;
use crate::market::fields::{self, Fields};
use crate::market::running::{self, Market, Running};

mod accounts;
mod provider;
mod requester;
mod routes;
mod threads;
mod view;

use routes::{Access, BodyKind, Route};

/// Most bytes of a request's body: 4 MiB, more than a prompt has.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request that was let in.
struct Asked<'a> {
    running: &'a Running,
    /// The account that asks.
    caller: Option<usize>,
    /// The id in the path; of an instance, a UUID.
    id: &'a str,
    query: &'a [(String, String)],
    /// The body's members; none if the call has no body.
    fields: Option<Fields>,
    /// The market's base URL, as the client sees it.
    base_url: &'a str,
}

/// What is answered.
struct Reply {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

/// Answers a request to this market; `path` is what follows its base URL.
pub(crate) async fn answer(
    running: &Arc<Running>,
    request: Request<Incoming>,
    path: &str,
) -> Response<Full<Bytes>> {
    let answered = tokio::select! {
        answered = Box::pin(served(running, request, path)) => answered,
        () = running.ended() => Err(running::gone()),
    };
    match answered {
        Ok(Reply { status, content_type, body }) => respond(status, content_type, body),
        Err(refused) => {
            let mut response = respond(refused.status, json_type(), refused.json().into());
            if refused.status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

async fn served(running: &Running, request: Request<Incoming>, path: &str) -> Result<Reply, Refused> {
    let (parts, body) = request.into_parts();
    let market = &*running.market;
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = Route::find(&parts.method, &segments);
    let caller = identified(market, &parts.headers);
    count(market, found.map_or("unknown", |(route, _)| route.name()), caller.known);
    let Some((route, id)) = found else {
        return Err(match Route::has_other_method(&segments) {
            true => Refused::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
            false => Refused::not_found("Not Found"),
        });
    };
    if route == Route::Instances && caller.known.is_some() {
        market.change(|state| state.scanned = true);
    }
    let fault = market.change(|state| state.faults.take(route.target()));
    let (before, after) = match fault {
        Some(fault) if fault.processed => (None, Some(fault.kind)),
        fault => (fault.map(|fault| fault.kind), None),
    };
    let reply = match spoilt(before).await {
        Some(spoilt) => spoilt,
        None => processed(running, route, id, caller, &parts, body).await,
    };
    if route == Route::Propose {
        let status = reply.as_ref().map_or_else(|refused| refused.status, |reply| reply.status);
        count_proposal(market, status, caller.known);
    }
    spoilt(after).await.unwrap_or(reply)
}

/// Serves a request as if there were no faults.
async fn processed(
    running: &Running,
    route: Route,
    id: &str,
    caller: Caller,
    parts: &Parts,
    body: Incoming,
) -> Result<Reply, Refused> {
    let body = read(body).await?;
    let fields = match route.body() {
        BodyKind::Nothing => None,
        BodyKind::Json => Some(Fields::json(&body)?), // before anybody is asked who he is
        BodyKind::Form => Some(Fields::form(&body)),
    };
    let caller = let_in(caller, route.access())?;
    if route != Route::Checkout && !id.is_empty() && !is_uuid(id) {
        let msg = "Input should be a valid UUID";
        let error = FieldError::new("uuid_parsing", &["path", "instance_id"], msg, Value::from(id));
        return Err(Refused::invalid(vec![error]));
    }
    let query = fields::pairs(parts.uri.query().unwrap_or_default());
    let base_url = base_url(&parts.headers, &running.market.name);
    let asked = Asked { running, caller, id, query: &query, fields, base_url: &base_url };
    handled(route, asked).await
}

async fn handled(route: Route, asked: Asked<'_>) -> Result<Reply, Refused> {
    match route {
        Route::Register => accounts::register(asked),
        Route::Login => accounts::login(asked),
        Route::Me => accounts::me(asked),
        Route::CreateKey => accounts::create_key(asked),
        Route::ListKeys => accounts::list_keys(asked),
        Route::DeleteKey => accounts::delete_key(asked),
        Route::EnableKey => accounts::switch_key(asked, true),
        Route::DisableKey => accounts::switch_key(asked, false),
        Route::Deposit => accounts::deposit(asked),
        Route::Checkout => accounts::checkout(asked),
        Route::Balance => accounts::balance(asked),
        Route::Withdraw => accounts::withdraw(asked),
        Route::PaymentAccount => accounts::payment_account(asked),
        Route::Instances => provider::instances(asked),
        Route::Instance => provider::instance(asked),
        Route::Proposals => provider::proposals(asked),
        Route::Propose => provider::propose(asked),
        Route::CreateInstance => requester::create(asked),
        Route::ForCurrentUser => requester::for_current_user(asked),
        Route::InvolvedProviders => requester::involved_providers(asked),
        Route::WinningProviders => requester::winning_providers(asked),
        Route::ReportReward => requester::report_reward(asked),
        Route::ProposalsByInstance => requester::proposals_by_instance(asked),
        Route::Complete => requester::complete(asked).await,
        Route::Completions => requester::completions(asked),
        Route::Thread => threads::thread(asked),
        Route::SendMessage => threads::send_message(asked),
    }
}

// === impl Asked ===

impl Asked<'_> {
    fn market(&self) -> &Market {
        &self.running.market
    }

    /// The account that asks; routes for anybody never want it.
    fn account(&self) -> Result<usize, Refused> {
        self.caller.ok_or_else(no_credentials)
    }

    /// A parameter of the query that has to be there.
    fn wanted(&self, name: &str) -> Result<&str, Refused> {
        self.parameter(name).ok_or_else(|| {
            let error = FieldError::new("missing", &["query", name], "Field required", Value::Null);
            Refused::invalid(vec![error])
        })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `instance_status`, if it is there.
    fn status_wanted(&self) -> Result<Option<u8>, Refused> {
        let Some(text) = self.parameter("instance_status") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            Refused::invalid(vec![FieldError::new(
                "int_parsing",
                &["query", "instance_status"],
                msg,
                Value::from(text),
            )])
        })
    }

    /// The body's members, to be read.
    fn take_fields(&mut self) -> Result<Fields, Refused> {
        self.fields.take().ok_or_else(|| Refused::invalid(Vec::new()))
    }
}

// === impl Reply ===

impl Reply {
    fn json(status: StatusCode, value: &impl Serialize) -> Result<Reply, Refused> {
        match serde_json::to_string(value) {
            Ok(json) => Ok(Reply { status, content_type: json_type(), body: json.into() }),
            Err(error) => Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("writing: {error}"))),
        }
    }

    fn ok(value: &impl Serialize) -> Result<Reply, Refused> {
        Reply::json(StatusCode::OK, value)
    }
}

/// Who a request says that it is from.
#[derive(Clone, Copy)]
struct Caller {
    known: Option<usize>,
    by_token: bool,
    /// It says something, be it wrong.
    says: bool,
}

fn identified(market: &Market, headers: &HeaderMap) -> Caller {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    let key = text("x-api-key");
    market.read(|state| {
        let by_key = key.and_then(|key| state.accounts.by_key(key));
        let by_token = token.and_then(|token| state.accounts.by_token(token, market.now()));
        Caller {
            known: by_token.or(by_key),
            by_token: by_token.is_some(),
            says: token.is_some() || key.is_some(),
        }
    })
}

/// The account that asks, if such may make the call.
fn let_in(caller: Caller, access: Access) -> Result<Option<usize>, Refused> {
    let Caller { known, by_token, says } = caller;
    match access {
        Access::Anybody => Ok(None),
        Access::Account if known.is_some() => Ok(known),
        Access::Person if by_token => Ok(known),
        Access::Account | Access::Person if says => {
            Err(Refused::unauthorized("Could not validate credentials"))
        }
        Access::Account | Access::Person => Err(no_credentials()),
    }
}

fn no_credentials() -> Refused {
    Refused::unauthorized("Not authenticated")
}

/// What a fault answers in place of the market; None if it does not, or there is none.
async fn spoilt(fault: Option<ApiFaultKind>) -> Option<Result<Reply, Refused>> {
    match fault? {
        ApiFaultKind::Delay(ms) => {
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
            None
        }
        ApiFaultKind::Hang => std::future::pending().await,
        ApiFaultKind::Garbage => {
            let body = Bytes::from_static(br#"[{"id": "0b"#);
            Some(Ok(Reply { status: StatusCode::OK, content_type: json_type(), body }))
        }
        ApiFaultKind::Status(status) => {
            let detail = format!("The simulated market was told to answer {}.", status.as_u16());
            Some(Err(Refused::new(status, detail)))
        }
    }
}

fn count(market: &Market, route: &'static str, caller: Option<usize>) {
    market.change(|state| {
        *state.requests.entry(route).or_default() += 1;
        if let Some(account) = caller.and_then(|caller| state.accounts.get_mut(caller)) {
            *account.tally.requests.entry(route).or_default() += 1;
        }
    });
}

fn count_proposal(market: &Market, status: StatusCode, caller: Option<usize>) {
    market.change(|state| {
        if let Some(account) = caller.and_then(|caller| state.accounts.get_mut(caller)) {
            *account.tally.proposals.entry(status.as_u16()).or_default() += 1;
        }
    });
}

async fn read(body: Incoming) -> Result<Bytes, Refused> {
    let too_large = |_| Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large");
    Limited::new(body, BODY_BYTES_MAX).collect().await.map(|body| body.to_bytes()).map_err(too_large)
}

fn base_url(headers: &HeaderMap, market: &str) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    format!("http://{host}/_market/{market}")
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn json_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
