//! A vendor that writes what it is told, byte for byte: for what no decent server does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One thing that it does.
#[derive(Clone, Debug)]
pub enum Act {
    Say(Vec<u8>),
    /// The same bytes again and again, as long as they are taken; not so fast that a client on a busy
    /// machine falls behind.
    SayForEver(Vec<u8>),
    Pause(Duration),
    /// Nothing more, until the other side leaves.
    Hold,
    /// Closes the connection; without it, another request may come.
    Close,
    /// Closes it with a reset.
    Reset,
}

/// A running one; dropped, it is gone.
pub struct RawVendor {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl RawVendor {
    /// Answers a request by what `acts` gives for its place on its connection, from 0.
    pub async fn start(acts: impl Fn(usize) -> Vec<Act> + Send + Sync + 'static) -> RawVendor {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (acts, counted) = (Arc::new(acts), Arc::clone(&requests));
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acts, counted) = (Arc::clone(&acts), Arc::clone(&counted));
                connections.spawn(async move {
                    // The other side may hang up whenever it likes.
                    let _ = serve(stream, &*acts, &counted).await;
                });
            }
        });
        RawVendor { address, requests, accepting }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Requests that have come.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }
}

impl Drop for RawVendor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    acts: &(dyn Fn(usize) -> Vec<Act> + Send + Sync),
    counted: &AtomicUsize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    for place in 0.. {
        request(&mut stream, &mut read).await?;
        counted.fetch_add(1, Ordering::AcqRel);
        for act in acts(place) {
            match act {
                Act::Say(bytes) => stream.write_all(&bytes).await?,
                Act::SayForEver(bytes) => loop {
                    stream.write_all(&bytes).await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                },
                Act::Pause(span) => tokio::time::sleep(span).await,
                Act::Hold => {
                    while stream.read(&mut [0; 64]).await? > 0 {}
                    return Ok(());
                }
                Act::Close => return stream.shutdown().await,
                Act::Reset => {
                    stream.set_zero_linger()?;
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Reads one request with a declared length; what follows stays in `read`.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let text = String::from_utf8_lossy(read).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end].lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
            if read.len() >= end + 4 + length {
                read.drain(..end + 4 + length);
                return Ok(());
            }
        }
        if stream.read_buf(read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The head of an answer with this type, whose body is chunked.
pub fn head(status: u16, content_type: &str) -> Act {
    let kind =
        if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
    Act::Say(format!("HTTP/1.1 {status} x\r\n{kind}transfer-encoding: chunked\r\n\r\n").into_bytes())
}

/// One chunk of it.
pub fn chunk(text: impl AsRef<[u8]>) -> Act {
    let text = text.as_ref();
    Act::Say([format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat())
}

/// Its end.
pub fn end() -> Act {
    Act::Say(b"0\r\n\r\n".to_vec())
}
