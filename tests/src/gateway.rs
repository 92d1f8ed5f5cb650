//! A gateway process that listens, and what is asked of it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::answer::Answer;
use crate::{command, workspace};

/// Until a gateway listens: a debug build compiles its plugins for seconds, several at once for
/// longer.
const START_MAX: Duration = Duration::from_secs(180);

/// Until an answer has come, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(120);

const LISTENING: &str = "listening on http://";

/// How to start a gateway.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// All that is in its environment.
    pub variables: Vec<(&'a str, &'a str)>,
    /// Who it runs as, where that is somebody else; its folder is theirs then.
    pub user: Option<u32>,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    address: String,
    client: reqwest::Client,
    log: Arc<Log>,
    readers: Vec<JoinHandle<()>>,
    folder: TempDir,
}

/// All that a gateway has printed.
#[derive(Default)]
struct Log {
    text: Mutex<Vec<u8>>,
    more: Condvar,
}

/// The counters of one plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Counters(Value);

impl<'a> Options<'a> {
    pub fn with(variables: &[(&'a str, &'a str)]) -> Options<'a> {
        Options { variables: variables.to_vec(), user: None }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts with this configuration; it says `listen = "127.0.0.1:0"`.
    pub fn start(config: &str, options: &Options<'_>) -> Gateway {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("sluice.toml"), config).expect("the configuration is written");
        Gateway::start_in(folder, options)
    }

    /// Starts in a folder, with what is there.
    pub fn start_in(folder: TempDir, options: &Options<'_>) -> Gateway {
        if let Some(plugins) = workspace::fresh_plugins() {
            std::os::unix::fs::symlink(plugins, folder.path().join("plugins.d"))
                .expect("no plugins.d is there");
        }
        let mut command = command::command(folder.path(), &[], &options.variables);
        if let Some(user) = options.user {
            std::os::unix::fs::chown(folder.path(), Some(user), None).expect("only root runs this test");
            command.uid(user);
        }
        let mut child = command.spawn().expect("the gateway starts");
        let log = Arc::new(Log::default());
        let (found, address) = mpsc::channel();
        let readers = vec![
            read(child.stdout.take().expect("a pipe"), &log, found.clone()),
            read(child.stderr.take().expect("a pipe"), &log, found),
        ];
        let address = address.recv_timeout(START_MAX);
        let client = client(|builder| builder);
        let mut gateway = Gateway { child, address: String::new(), client, log, readers, folder };
        match address {
            Ok(address) => gateway.address = address,
            Err(error) => panic!("the gateway does not listen ({error}); it says:\n{}", gateway.stop()),
        }
        gateway
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The client that its other methods use: HTTP/1.1, no proxy.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.client.get(self.url(path))).await
    }

    /// Asks for a chat completion with these bytes.
    pub async fn chat(&self, body: impl Into<reqwest::Body>) -> Answer {
        send(self.chat_request(body)).await
    }

    /// The same, to be added to.
    pub fn chat_request(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url("/v1/chat/completions"));
        request.header("content-type", "application/json").body(body)
    }

    /// Asks a model a plain question.
    pub async fn ask(&self, model: &str) -> Answer {
        self.chat(question(model, false).to_string()).await
    }

    /// What `/admin/v1/plugins` says.
    pub async fn plugins(&self) -> Value {
        let answer = self.get("/admin/v1/plugins").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// One plugin's counters.
    pub async fn counters(&self, plugin: &str) -> Counters {
        let plugins = self.plugins().await;
        let rows = plugins["plugins"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["id"] == plugin);
        Counters(row.unwrap_or_else(|| panic!("there is no plugin {plugin} in {plugins:#}")).clone())
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.text()).into_owned()
    }

    /// Waits until it has printed this text so many times.
    pub fn wait_for(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.log.text();
        while String::from_utf8_lossy(&log).matches(text).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            let all = String::from_utf8_lossy(&log).into_owned();
            assert!(!left.is_zero(), "{text:?} was not printed {times} times in {PATIENCE:?}:\n{all}");
            let waited = self.log.more.wait_timeout(log, left);
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its process, for what the system knows of it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            "INT" => rustix::process::Signal::INT,
            "KILL" => rustix::process::Signal::KILL,
            "STOP" => rustix::process::Signal::STOP,
            "CONT" => rustix::process::Signal::CONT,
            _ => panic!("no test sends {name}"),
        };
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), signal).expect("it runs");
    }

    /// Waits until it has ended by itself; gives its exit code and all that it has printed.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("a child").code();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of the log");
        }
        (code, self.log())
    }

    /// Ends it in order, and gives its folder.
    pub fn ended_in_order(mut self) -> TempDir {
        self.signal("INT");
        assert_eq!(self.child.wait().expect("a child").code(), Some(0), "{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Open files of its process, sockets among them.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Memory that its process holds, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Kills it as a power cut would, and gives its folder for another one.
    pub fn crash(mut self) -> TempDir {
        self.kill();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Kills it; gives all that it has printed.
    pub fn stop(mut self) -> String {
        self.kill();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of the log");
        }
        self.log()
    }

    /// Its working directory.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies lines to the log, and tells the address once it stands in one.
fn read(from: impl Read + Send + 'static, log: &Arc<Log>, found: Sender<String>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            if let Some((_, address)) = String::from_utf8_lossy(&line).split_once(LISTENING) {
                // Nobody waits for a second one.
                let _ = found.send(address.trim().to_owned());
            }
            log.text().append(&mut line);
            log.more.notify_all();
        }
    })
}

impl Log {
    fn text(&self) -> MutexGuard<'_, Vec<u8>> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Counters ===

impl Counters {
    /// How often a function was called.
    pub fn calls(&self, function: &str) -> u64 {
        self.0["calls"][function]["count"].as_u64().unwrap_or(0)
    }

    /// How often a fault happened.
    pub fn faults(&self, fault: &str) -> u64 {
        self.0["faults"][fault].as_u64().unwrap_or(0)
    }

    /// All faults, by class.
    pub fn all_faults(&self) -> Vec<(String, u64)> {
        let faults = self.0["faults"].as_object().expect("an object");
        faults.iter().map(|(class, count)| (class.clone(), count.as_u64().unwrap_or(0))).collect()
    }

    /// The whole row.
    pub fn row(&self) -> &Value {
        &self.0
    }
}

/// A client that goes nowhere by itself.
pub fn client(change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> reqwest::Client {
    // Installed already by another test of the process, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    change(builder.timeout(PATIENCE)).build().expect("a client")
}

/// Sends a request and reads the whole answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    Answer::read(response).await.expect("a whole answer")
}

/// The value of one line of the page for Prometheus, by its name and labels; 0 where there is none.
pub fn metric(page: &str, line: &str) -> f64 {
    let rest = page.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
    rest.map_or(0.0, |value| value.parse().expect("a number"))
}

/// A plain question, whose text has three words.
pub fn question(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]})
}
