//! The end: says that it comes, lets run what runs, cuts what does not end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::server::{Connections, Server};
use crate::snapshot::Current;

/// For connections that rest to be closed; on HTTP/2 the client has a word to say in it.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// All that ran has ended.
    Clean,
    /// The deadline was over, or a second signal came: so many connections were cut.
    Cut { connections: usize },
}

/// Serves until a signal; then drains. `signals`: from before anybody was told that it serves.
pub(crate) async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    current: &Current,
    mut signals: Signals,
) -> std::io::Result<Stopped> {
    let mut connections = Connections::default();
    let first = tokio::select! {
        error = server.accept(&listener, &mut connections) => return Err(error),
        first = signals.next() => first,
    };
    let drain = current.load().config.server.drain;
    server.drains();
    tracing::info!(connections = connections.count(), deadline = ?drain.deadline, "draining");
    // Whoever sends requests here learns from `/ready` that it should not, before it would be refused.
    if first == SignalKind::terminate() {
        tokio::select! {
            error = server.accept(&listener, &mut connections) => return Err(error),
            _elapsed = tokio::time::sleep(drain.notice) => {}
            _second = signals.next() => return Ok(cut(connections).await),
        }
    }
    drop(listener);
    connections.finish();
    tokio::select! {
        _all_or_over = timeout(drain.deadline, connections.ended()) => {}
        _second = signals.next() => {}
    }
    Ok(cut(connections).await)
}

/// Ends what still runs; connections that rest are closed, not cut.
async fn cut(mut connections: Connections) -> Stopped {
    connections.finish();
    if timeout(CLOSE_WITHIN, connections.ended()).await.is_ok() {
        tracing::info!("stopped: all answers were complete");
        return Stopped::Clean;
    }
    let connections = connections.count();
    tracing::warn!(connections, "stopped: connections were cut in the middle of an answer");
    Stopped::Cut { connections }
}

pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
