//! The listener: connections with bounded heads, and which path is whose.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::gateway::Gateway;
use crate::refusal::Refusal;
use crate::stream::Body;

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers of a request at most.
const HEADERS_MAX: usize = 128;

/// Until a head has arrived whole, counted from the end of the answer before it: longer than
/// the SDKs keep a resting connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections at once; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// Requests at once on one HTTP/2 connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Answers requests; one per listener.
pub(crate) struct Server {
    gateway: Arc<Gateway>,
    admin: Admin,
    ids: RequestIds,
}

/// Ids that are unique as long as processes start with different numbers.
struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl Server {
    /// `process` tells this process's request ids from those of others.
    pub(crate) fn new(gateway: Arc<Gateway>, admin: Admin, process: u32) -> Server {
        Server { gateway, admin, ids: RequestIds { process, next: AtomicU64::new(1) } }
    }

    /// Serves until dropped; the connections end with it.
    pub(crate) async fn serve(self, listener: TcpListener) -> std::io::Error {
        let server = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return std::io::Error::other("the places for connections are closed");
            };
            match listener.accept().await {
                Ok((stream, _peer)) => {
                    let server = Arc::clone(&server);
                    connections.spawn(async move {
                        server.connection(stream).await;
                        drop(place);
                    });
                }
                // Such as too many open files: those that are open go on.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
        let service = service_fn(move |request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
        });
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(error = %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (received, id) = (Instant::now(), self.ids.next());
        let header = HeaderValue::try_from(&id).ok();
        let (head, body) = request.into_parts();
        let mut answer = match self.route(id.clone(), received, head, body).await {
            Ok(answer) => answer,
            Err(refusal) => {
                tracing::info!(request = id, code = refusal.code(), "refused");
                refusal.into_response()
            }
        };
        if let Some(header) = header {
            answer.headers_mut().insert(HeaderName::from_static("x-request-id"), header);
        }
        answer
    }

    async fn route(
        &self,
        id: String,
        received: Instant,
        head: Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        check_origin(&head.uri, &head.headers)?;
        let path = head.uri.path();
        match path {
            "/v1/chat/completions" => {
                only(&head.method, Method::POST)?;
                self.gateway.chat(id, received, head, body).await
            }
            _ => {
                let page =
                    self.admin.page(path).ok_or_else(|| Refusal::NoSuchPath { path: shortened(path) })?;
                only(&head.method, page.method())?;
                page.answer().await
            }
        }
    }
}

impl RequestIds {
    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{number:08x}", self.process)
    }
}

/// While no key is required, only this machine's own pages and programs may ask: a name that
/// was rebound to 127.0.0.1 shows in `Host`, a foreign page in `Origin`.
fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let foreign_origin = origin.is_some_and(|origin| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !authority.is_some_and(is_this_machine)
    });
    match host {
        Some(host) if is_this_machine(host) && !foreign_origin => Ok(()),
        _ => Err(Refusal::ForeignOrigin),
    }
}

fn is_this_machine(authority: &str) -> bool {
    let with_port =
        |name: &str| authority.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| name.parse());
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || with_port(bare).is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn only(method: &Method, allowed: Method) -> Result<(), Refusal> {
    match *method == allowed {
        true => Ok(()),
        false if allowed == Method::POST => Err(Refusal::WrongMethod { allowed: "POST" }),
        false => Err(Refusal::WrongMethod { allowed: "GET" }),
    }
}

fn shortened(path: &str) -> String {
    path.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_this_machine() {
        for authority in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8080"]
        {
            assert!(is_this_machine(authority), "{authority}");
        }
        for authority in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:1",
            "evil:80",
        ] {
            assert!(!is_this_machine(authority), "{authority}");
        }
    }

    #[test]
    fn a_foreign_page_is_refused_whatever_host_it_names() {
        let check = |host: Option<&'static str>, origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(HOST, host), (ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            check_origin(&Uri::from_static("/x"), &headers).is_ok()
        };
        assert!(check(Some("localhost:1"), None));
        assert!(check(Some("localhost:1"), Some("http://localhost:3000")));
        assert!(!check(Some("evil.example"), None));
        assert!(!check(None, None));
        assert!(!check(Some("localhost:1"), Some("https://evil.example")));
        assert!(!check(Some("localhost:1"), Some("null")));
    }
}
