//! Starts the stand-in and stops it: one listener, one task per connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::task::{JoinHandle, JoinSet};

use crate::books::{Books, Goal, Snapshot};
use crate::connection;
use crate::script::{Script, Scripts};
use crate::service::Service;

/// A running stand-in. Dropping it closes its listener and its connections.
pub struct Simulator {
    address: SocketAddr,
    books: Arc<Books>,
    scripts: Arc<Scripts>,
    accepting: JoinHandle<()>,
}

// === impl Simulator ===

impl Simulator {
    /// Listens on `listen` and serves from then on. Needs a Tokio runtime with
    /// I/O and time.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn start(listen: impl ToSocketAddrs) -> io::Result<Simulator> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let books = Arc::new(Books::default());
        let scripts = Arc::new(Scripts::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&books), Arc::clone(&scripts)));
        Ok(Simulator { address, books, scripts, accepting })
    }

    /// Where it listens; the port is a real one even if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of a vendor's API, as clients want it.
    pub fn base_url(&self, vendor: &str) -> String {
        format!("http://{}/{vendor}/v1", self.address)
    }

    /// Replaces a vendor's script.
    ///
    /// # Panics
    ///
    /// With the script of one vendor too many, as the control API refuses it.
    pub fn direct(&self, vendor: &str, script: Script) {
        assert!(self.scripts.set(vendor, script).is_ok(), "too many vendors have a script");
    }

    /// The books of all vendors, now.
    pub fn books(&self) -> Snapshot {
        self.books.snapshot(None)
    }

    /// The books of all vendors as soon as the goal is reached. Waits without
    /// an end: the caller has the timeout. Cancel safe.
    pub async fn books_when(&self, goal: Goal) -> Snapshot {
        self.books.wait(None, goal).await;
        self.books.snapshot(None)
    }

    /// Forgets rows and totals.
    pub fn clear_books(&self) {
        self.books.clear();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.accepting.abort(); // it owns the listener and the connections
    }
}

async fn accept(listener: TcpListener, books: Arc<Books>, scripts: Arc<Scripts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let service = Service::new(Arc::clone(&books), Arc::clone(&scripts));
                    connections.spawn(connection::serve(stream, service));
                }
                // The peer left the queue, or we are out of descriptors: both pass.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_ended) = connections.join_next() => (),
        }
    }
}
