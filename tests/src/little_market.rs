//! A market that knows accounts, keys and money, and nothing else: a thread, a socket, a few routes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// The market; its thread ends with the process.
pub struct LittleMarket {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What it says instead of what it should: a whole answer, as bytes.
pub type Instead = Option<Vec<u8>>;

#[derive(Default)]
struct State {
    token: String,
    keys: Vec<String>,
    users: Vec<(String, String)>,
    instead: Instead,
    requests: Vec<String>,
}

impl LittleMarket {
    /// Gives this token to who logs in, and these keys, one after the other.
    pub fn start(token: &str, keys: &[&str]) -> LittleMarket {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let keys = keys.iter().rev().map(|key| (*key).to_owned()).collect();
        let state = Arc::new(Mutex::new(State { token: token.to_owned(), keys, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A client that leaves early is no concern of the next one.
                let _ = serve(connection, &shared);
            }
        });
        LittleMarket { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it says this, whatever is asked.
    pub fn says(&self, instead: Instead) {
        self.state().instead = instead;
    }

    /// What it was asked so far: heads and bodies. Forgets them.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A whole answer.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
        .into()
}

fn serve(mut connection: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    while lines.read_line(&mut head)? > 2 {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.requests.push(format!("{head}{body}"));
    let said = match &state.instead {
        Some(instead) => instead.clone(),
        None => {
            let (status, said) = state.answer(&head, &body);
            answer(status, "content-type: application/json\r\n", &said.to_string())
        }
    };
    connection.write_all(&said)
}

impl State {
    fn answer(&mut self, head: &str, body: &str) -> (&'static str, Value) {
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
        let (path, query) = line.split_once('?').unwrap_or((line, ""));
        let person = head.contains(&format!("authorization: Bearer {}\r\n", self.token));
        let machine = head.contains("x-api-key: ");
        let json: Value = body.parse().unwrap_or_default();
        match path {
            "POST /v1/auth/register" => self.register(&json),
            "POST /v1/auth/login" => {
                let known = |(name, password): &(String, String)| {
                    body == format!("username={name}&password={password}")
                };
                if !self.users.iter().any(known) {
                    return ("401 Unauthorized", json!({"detail": "Incorrect username or password"}));
                }
                ("200 OK", json!({"access_token": self.token, "token_type": "bearer"}))
            }
            _ if !person && !machine => ("401 Unauthorized", json!({"detail": "Not authenticated"})),
            "GET /v1/auth/users/me/" => {
                ("200 OK", json!({"username": self.users[0].0, "email": "a@b.example"}))
            }
            "POST /v1/auth/create-api-key" if person && query.contains("is_live=true") => {
                let key = self.keys.pop().unwrap_or_default();
                ("201 Created", json!({"api_key": key, "name": "n", "is_live": true}))
            }
            "POST /v1/payment/deposit" => ("200 OK", json!({"url": "https://pay.example/c/1"})),
            "GET /v1/payment/balance" => {
                ("200 OK", json!({"wallet_balance": 12.345, "held_balance": 0, "currency": "usd"}))
            }
            _ => ("404 Not Found", json!({"detail": "Not Found"})),
        }
    }

    fn register(&mut self, json: &Value) -> (&'static str, Value) {
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let (name, password) = (text("username"), text("password"));
        if self.users.iter().any(|(known, _)| *known == name) {
            return ("400 Bad Request", json!({"detail": "Username already registered"}));
        }
        if text("email").is_empty() || text("fullname").is_empty() {
            let problem = json!({"loc": ["body", "email"], "msg": "field required", "input": json});
            return ("422 Unprocessable Entity", json!({"detail": [problem]}));
        }
        self.users.push((name, password));
        ("201 Created", json!({}))
    }
}
