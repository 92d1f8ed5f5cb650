//! The listener: connections with bounded heads, and which path is whose.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::auth;
use crate::gateway::Gateway;
use crate::rate_headers::Refused;
use crate::refusal::Refusal;
use crate::stream::{Body, Connection};
use crate::timed_io::TimedIo;
use crate::workers::Workers;

/// Bytes of a request's head at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Headers of a request at most.
const HEADERS_MAX: usize = 128;

/// Connections at once; further ones wait in the listener's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// Connections in the listener's queue, as far as the system allows (`net.core.somaxconn`). A client
/// that finds it full tries again after a second.
const BACKLOG: u32 = 4_096;

/// Between two signs of life on an HTTP/2 connection.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);

/// Requests at once on one HTTP/2 connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Bytes that wait in the kernel for one client. A socket takes more only when a third of them has
/// gone: with the megabytes that kernels allow, a slow reader would look like none.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Of a request's id, for the first four billion requests.
const ID_BYTES: usize = 17;

/// Answers requests; one per listener.
pub(crate) struct Server {
    gateway: Arc<Gateway>,
    admin: Admin,
    ids: RequestIds,
    workers: Workers,
    places: Arc<Semaphore>,
    /// Told when this is the end, for who works beside.
    ends: watch::Sender<bool>,
}

/// Connections that are open; dropped, they are cut.
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    finish: watch::Sender<bool>,
}

/// Ids that are unique as long as processes start with different numbers.
struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl Server {
    /// `process` tells this process's request ids from those of others. `ends` is told when it drains.
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        admin: Admin,
        process: u32,
        workers: Workers,
        ends: watch::Sender<bool>,
    ) -> Server {
        let ids = RequestIds { process, next: AtomicU64::new(1) };
        Server { gateway, admin, ids, workers, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), ends }
    }

    /// From now on `/ready` says no.
    pub(crate) fn drains(&self) {
        self.admin.drains();
        self.ends.send_replace(true);
    }

    /// A listener for [`Server::accept`].
    ///
    /// # Errors
    ///
    /// Where the address is not to be had.
    pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart takes the address of its predecessor's connections that are still closing.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        // Connections inherit it.
        rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
        Ok(listener)
    }

    /// Accepts until dropped; the connections stay.
    pub(crate) async fn accept(
        self: &Arc<Server>,
        listener: &TcpListener,
        connections: &mut Connections,
    ) -> std::io::Error {
        loop {
            while connections.tasks.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                return std::io::Error::other("the places for connections are closed");
            };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (server, finish) = (Arc::clone(self), connections.finish.subscribe());
                    let stream = stream.into_std();
                    self.workers.spawn(&mut connections.tasks, async move {
                        match stream.and_then(TcpStream::from_std) {
                            Ok(stream) => server.connection(stream, peer.ip(), finish).await,
                            Err(error) => not_accepted(&error),
                        }
                        drop(place);
                    });
                }
                // Such as too many open files: those that are open go on.
                Err(error) => {
                    not_accepted(&error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: IpAddr, mut finish: watch::Receiver<bool>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let timers = self.gateway.client_timers();
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(timers.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING_EVERY)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
        let client = Connection::from(peer);
        let this = client.clone();
        let service = service_fn(move |request| {
            let (server, client) = (Arc::clone(&self), this.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(request, client).await) }
        });
        let io = TokioIo::new(TimedIo::new(stream, timers.head, timers.stalled_reader));
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = client.ended() => return,
            () = told(&mut finish) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = client.ended() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, client: Connection) -> Response<Body> {
        let id = self.ids.next();
        let header = HeaderValue::try_from(&id).ok();
        let (head, body) = request.into_parts();
        let version = head.version;
        let mut answer = match self.route(id.clone(), head, body, client).await {
            Ok(answer) => answer,
            Err(refused) => {
                tracing::debug!(request = id, code = refused.refusal.code(), "refused");
                refused.into_response()
            }
        };
        if let Some(header) = header {
            answer.headers_mut().insert(HeaderName::from_static("x-request-id"), header);
        }
        // A client that kept the connection would find it closed. (HTTP/2 has a frame for that.)
        if version < Version::HTTP_2 && self.admin.is_draining() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn route(
        &self,
        id: String,
        head: Parts,
        body: Incoming,
        client: Connection,
    ) -> Result<Response<Body>, Refused> {
        if !self.gateway.requires_keys() {
            auth::check_origin(&head.uri, &head.headers)?;
        }
        let path = head.uri.path();
        match path {
            "/v1/chat/completions" | "/v1/completions" | "/v1/completions/" => {
                only(&head.method, Method::POST)?;
                self.gateway.chat(id, head, body, client).await
            }
            _ => {
                let page = self
                    .admin
                    .page(path, &head.method)
                    .ok_or_else(|| Refusal::NoSuchPath { path: shortened(path) })?;
                only(&head.method, page.method())?;
                Ok(page.answer(&head, body, client.peer()).await?)
            }
        }
    }
}

fn not_accepted(error: &std::io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
}

/// Until it is said that this is the end; who would say so may be gone.
async fn told(finish: &mut watch::Receiver<bool>) {
    let _ = finish.wait_for(|finish| *finish).await;
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { tasks: JoinSet::new(), finish: watch::Sender::new(false) }
    }
}

impl Connections {
    pub(crate) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Each ends with the answer that it is giving; those that rest, at once.
    pub(crate) fn finish(&self) {
        self.finish.send_replace(true);
    }

    /// When all have ended.
    pub(crate) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl RequestIds {
    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(ID_BYTES);
        push_hex(&mut id, self.process.into());
        id.push('-');
        push_hex(&mut id, number);
        id
    }
}

/// Eight hexadecimal digits, or as many as it needs. (`format!` takes as long as a system call.)
fn push_hex(text: &mut String, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = 8.max(16 - number.leading_zeros() / 4);
    for place in (0..digits).rev() {
        text.push(char::from(DIGITS[(number >> (4 * place)) as usize & 0xf]));
    }
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
    fn an_id_is_written_as_format_would() {
        for number in [0, 1, 0xdead_beef, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut text = String::new();
            push_hex(&mut text, number);
            assert_eq!(text, format!("{number:08x}"));
        }
    }
}
