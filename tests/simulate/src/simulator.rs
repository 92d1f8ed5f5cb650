//! Starts the stand-in and stops it: one listener, one task per connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs};
use tokio::task::{JoinHandle, JoinSet};

use crate::books::{Books, Goal, Snapshot};
use crate::connection;
use crate::market::{MarketBooks, MarketScript, Markets};
use crate::script::{Script, Scripts};
use crate::service::Service;

/// Connections that wait to be accepted, as far as the system allows.
const BACKLOG: u32 = 4_096;

/// A running stand-in. Dropping it closes its listener and its connections.
pub struct Simulator {
    address: SocketAddr,
    books: Arc<Books>,
    scripts: Arc<Scripts>,
    markets: Arc<Markets>,
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
        let listener = bound(listen).await?;
        let address = listener.local_addr()?;
        let books = Arc::new(Books::default());
        let scripts = Arc::new(Scripts::default());
        let markets = Arc::new(Markets::default());
        let served = (Arc::clone(&books), Arc::clone(&scripts), Arc::clone(&markets));
        let accepting = tokio::spawn(accept(listener, served));
        Ok(Simulator { address, books, scripts, markets, accepting })
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

    /// The base URL of a market, as a provider wants it.
    pub fn market_url(&self, market: &str) -> String {
        format!("http://{}/_market/{market}", self.address)
    }

    /// Opens a market, in place of the one of this name; its season begins.
    ///
    /// # Errors
    ///
    /// What is wrong with the script, or that there are too many markets.
    pub fn open_market(&self, market: &str, script: MarketScript) -> Result<(), String> {
        self.markets.open(market, script)
    }

    /// The books of a market, now; None if there is none of this name.
    pub fn market_books(&self, market: &str) -> Option<MarketBooks> {
        self.markets.get(market).map(|running| running.market.books())
    }

    /// The books of a market as soon as so many instances are final. Waits
    /// without an end: the caller has the timeout. Cancel safe.
    pub async fn market_books_when(&self, market: &str, final_instances: usize) -> Option<MarketBooks> {
        let market = Arc::clone(&self.markets.get(market)?.market);
        Some(market.books_when_final(final_instances).await)
    }

    /// Forgets rows and totals.
    pub fn clear_books(&self) {
        self.books.clear();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.accepting.abort(); // it owns the listener and the connections
        self.markets.close_all();
    }
}

/// A listener with room for clients that come at once.
async fn bound(listen: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(listen).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(refused) => error = refused,
        }
    }
    Err(error)
}

async fn accept(listener: TcpListener, served: (Arc<Books>, Arc<Scripts>, Arc<Markets>)) {
    let (books, scripts, markets) = served;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => {
                    let service = Service::new(Arc::clone(&books), Arc::clone(&scripts), Arc::clone(&markets));
                    connections.spawn(connection::serve(stream, service));
                }
                // The peer left the queue, or we are out of descriptors: both pass.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_ended) = connections.join_next() => (),
        }
    }
}
