//! A way to a server, at an address that stays: it can be cut or lead elsewhere, and remembers what was
//! asked on it. Threads and sockets; an answer passes as it comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::little_market::answer;

/// A way; its threads end with the process.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What becomes of a request instead of an answer.
#[derive(Clone, Debug)]
pub enum Instead {
    /// These bytes are the answer.
    Says(Vec<u8>),
    /// A refusal with the credential and the body that were sent.
    Repeats,
    /// Nothing is said until the client leaves.
    Hangs,
    /// The connection ends.
    Cut,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /path?query`
    pub line: String,
    pub head: String,
    pub body: String,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    to: Option<SocketAddr>,
    /// Of requests whose line contains the text.
    instead: Option<(String, Instead)>,
    asked: Vec<Asked>,
}

impl Relay {
    /// Leads nowhere: who asks waits until it does.
    pub fn start() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let relay = Relay { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Either side may leave whenever it likes.
                std::thread::spawn(move || shared.serve(connection));
            }
        });
        relay
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn leads_to(&self, to: SocketAddr) {
        self.shared.change(|state| state.to = Some(to));
    }

    /// From now on, this becomes of requests whose line contains the text.
    pub fn fails(&self, part: &str, instead: Instead) {
        self.shared.change(|state| state.instead = Some((part.to_owned(), instead)));
    }

    /// Requests pass again; those that hang go on hanging.
    pub fn heals(&self) {
        self.shared.change(|state| state.instead = None);
    }

    /// Those of all requests so far whose line contains the text.
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        self.shared.lock().asked.iter().filter(|asked| asked.line.contains(part)).cloned().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// One request a connection.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let asked = read(&mut BufReader::new(client.try_clone()?))?;
        let mut state = self.lock();
        state.asked.push(asked.clone());
        let (to, instead) = loop {
            let instead = state.instead.as_ref().filter(|(part, _)| asked.line.contains(part));
            match (state.to, instead) {
                (to, Some((_, instead))) => break (to, Some(instead.clone())),
                (Some(to), None) => break (Some(to), None),
                (None, None) => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        match (instead, to) {
            (Some(Instead::Says(bytes)), _) => client.write_all(&bytes),
            (Some(Instead::Repeats), _) => client.write_all(&asked.repeated()),
            (Some(Instead::Hangs), _) => client.read(&mut [0]).map(drop),
            (Some(Instead::Cut), _) | (None, None) => Ok(()),
            (None, Some(to)) => {
                let mut server = TcpStream::connect(to)?;
                let lines = asked.head.lines().filter(|line| !is_of_the_connection(line));
                let head: String = lines.map(|line| format!("{line}\r\n")).collect();
                server.write_all(format!("{head}connection: close\r\n\r\n{}", asked.body).as_bytes())?;
                io::copy(&mut server, &mut client).map(drop)
            }
        }
    }
}

impl Asked {
    fn repeated(&self) -> Vec<u8> {
        let is_credential = |line: &&str| line.to_ascii_lowercase().starts_with("x-api-key:");
        let credential = self.head.lines().find(is_credential).unwrap_or_default();
        let said = json!({ "detail": format!("{credential} {}", self.body) });
        answer("400 Bad Request", "content-type: application/json\r\n", &said.to_string())
    }
}

fn is_of_the_connection(line: &str) -> bool {
    line.is_empty() || line.to_ascii_lowercase().starts_with("connection:")
}

fn read(lines: &mut impl BufRead) -> io::Result<Asked> {
    let (mut head, mut length) = (String::new(), 0);
    while lines.read_line(&mut head)? > 2 {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    Ok(Asked { line, head, body: String::from_utf8_lossy(&body).into_owned() })
}
