//! A gateway that bids on a stand-in market and serves what it wins.
//!
//! It asks the market by one relay and is called by another, so either way can be cut, every call to the
//! market is known with its time, and the address that the market was given outlives a process.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_simulate::{InstanceRow, MarketBooks, Simulator};
use tempfile::TempDir;

use crate::gateway::{self, PATIENCE};
use crate::relay::Relay;
use crate::{Answer, Gateway, Options, command};

/// The vendor's key, that of the market, and an account's password.
pub const VARIABLES: [(&str, &str); 3] =
    [("KEY", "sk-of-the-test"), ("MARKET_KEY", MARKET_KEY), ("SLUICE_MARKET_PASSWORD", "secret-of-the-test")];

/// By which the gateway is known to the market, as `p`.
pub const MARKET_KEY: &str = "mk-of-the-test";

/// Of the vendor, where a test says nothing else: dollars for a million tokens.
const PRICE: &str = "price = { input = \"1\", output = \"2\" }";

/// Another provider, `q`, that does what a test says.
const OTHERS_KEY: &str = "mk-of-another";

/// A market and a vendor, and the folder of a gateway that is not there yet.
pub struct Ground {
    pub simulator: Simulator,
    /// Between the gateway and the market.
    pub market: Relay,
    /// Between the market and the gateway.
    pub door: Relay,
    folder: TempDir,
}

/// A market, a vendor, and a gateway between them.
pub struct Fair {
    pub simulator: Simulator,
    pub market: Relay,
    pub door: Relay,
    pub gateway: Gateway,
}

impl Ground {
    /// Opens the market with this script, whose account has ten dollars, and writes a configuration with
    /// these lines in its `[market]`.
    pub async fn open(script: Value, market: &str) -> Ground {
        let simulator = Simulator::start("127.0.0.1:0").await.expect("the stand-in starts");
        open(&simulator, script);
        let (to_market, door) = (Relay::start(), Relay::start());
        to_market.leads_to(simulator.address());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ground = Ground { simulator, market: to_market, door, folder };
        let text = config(&ground.simulator, &ground.market, &ground.door, market);
        std::fs::write(ground.path().join("sluice.toml"), text).expect("it is written");
        ground
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Drops a plugin into the folder that is watched.
    pub fn with_plugin(self, file: &str, bytes: &[u8]) -> Ground {
        let plugins = self.path().join("plugins.d");
        std::fs::create_dir_all(&plugins).expect("a folder");
        std::fs::write(plugins.join(file), bytes).expect("it is written");
        self
    }

    /// Runs `sluice` in the folder.
    pub fn run(&self, arguments: &[&str]) -> command::Run {
        command::run(self.path(), arguments, &VARIABLES)
    }

    /// Starts the gateway.
    pub fn begin(self) -> Fair {
        self.begin_with(&Options::with(&VARIABLES))
    }

    pub fn begin_with(self, options: &Options<'_>) -> Fair {
        let Ground { simulator, market, door, folder } = self;
        let gateway = Gateway::start_in(folder, options);
        door.leads_to(gateway.address().parse().expect("an address"));
        Fair { simulator, market, door, gateway }
    }
}

impl Fair {
    /// Both at once.
    pub async fn start(script: Value, market: &str) -> Fair {
        Ground::open(script, market).await.begin()
    }

    /// The same, with a vendor at this price: dollars for a million tokens, input and output.
    pub async fn priced([input, output]: [u64; 2], script: Value, market: &str) -> Fair {
        let ground = Ground::open(script, market).await;
        let file = ground.path().join("sluice.toml");
        let text = std::fs::read_to_string(&file).expect("it was written");
        let dear = text.replace(PRICE, &format!("price = {{ input = \"{input}\", output = \"{output}\" }}"));
        assert_ne!(dear, text, "the usual price is in it");
        std::fs::write(file, dear).expect("it is written");
        ground.begin()
    }

    /// Writes the configuration anew and waits until it serves.
    pub fn configure(&self, market: &str) {
        let text = config(&self.simulator, &self.market, &self.door, market);
        let before = self.gateway.log().matches("transition=\"config_reloaded\"").count();
        std::fs::write(self.gateway.folder().join("sluice.toml"), text).expect("it is written");
        self.gateway.wait_for("transition=\"config_reloaded\"", before + 1);
    }

    /// The same market, and another gateway on the same data. It listens elsewhere, behind the same
    /// address.
    pub fn restarted(self, ended: impl FnOnce(Gateway) -> TempDir) -> Fair {
        let Fair { simulator, market, door, gateway } = self;
        Ground { simulator, market, door, folder: ended(gateway) }.begin()
    }

    /// Puts a job on the market, and gives its id.
    pub async fn give(&self, job: Value) -> String {
        let url = format!("http://{}/_simulate/markets/m/instances", self.simulator.address());
        let answer = gateway::send(self.gateway.client().post(url).body(job.to_string())).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Another provider bids so many dollars. Of jobs that close after two bids it decides when they do,
    /// and who wins.
    pub async fn other_bids(&self, job: &str, dollars: f64) {
        let url = self.simulator.market_url("m");
        let url = format!("{url}/v1/proposals/create/for-instance/{job}");
        let bid = json!({ "max_bid": dollars, "endpoint": format!("http://{}/", self.simulator.address()), "endpoint_api_key": "k" });
        let request = self.gateway.client().post(url).header("x-api-key", OTHERS_KEY);
        let request = request.header("content-type", "application/json").body(bid.to_string());
        let answer = gateway::send(request).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// The key that the market was given with a proposal for this job.
    pub fn key_of(&self, job: &str) -> String {
        let proposals = self.market.asked(&format!("/v1/proposals/create/for-instance/{job}"));
        let body: Value = proposals.last().expect("a proposal").body.parse().expect("its JSON");
        body["endpoint_api_key"].as_str().expect("a key").to_owned()
    }

    /// Calls the gateway as the market does, with a job's key.
    pub async fn call(&self, path: &str, key: &str, body: &Value) -> Answer {
        gateway::send(self.call_request(path, key, body)).await
    }

    /// The same, not yet sent.
    pub fn call_request(&self, path: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.gateway.client().post(self.gateway.url(path)).bearer_auth(key);
        request.header("content-type", "application/json").body(body.to_string())
    }

    /// The market's books, as soon as so many jobs are final.
    pub async fn finals(&self, count: usize) -> MarketBooks {
        let books = tokio::time::timeout(PATIENCE, self.simulator.market_books_when("m", count)).await;
        match books {
            Ok(books) => books.expect("there is a market"),
            Err(_) => panic!("{:?}\n{}", self.simulator.market_books("m"), self.gateway.log()),
        }
    }

    /// The market's books now.
    pub fn books(&self) -> MarketBooks {
        self.simulator.market_books("m").expect("there is a market")
    }

    /// The vendor's script.
    pub fn direct(&self, script: Value) {
        self.simulator.direct("a", serde_json::from_value(script).expect("a script"));
    }

    /// `/admin/v1/market`.
    pub async fn page(&self) -> Value {
        self.gateway.get("/admin/v1/market?by=job").await.json()
    }

    /// Looks at the page until it is as wanted.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = self.page().await;
            if is_so(&page) {
                return page;
            }
            assert!(Instant::now() < deadline, "{what}: {page:#}\n{}", self.gateway.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As soon as there were so many looks at the market more.
    pub async fn scans(&self, more: u64) -> Value {
        let wanted = self.page().await["scans"].as_u64().expect("a number") + more;
        self.until("the market is looked at", |page| page["scans"].as_u64() >= Some(wanted)).await
    }

    /// As soon as the market has taken so many proposals for jobs that have not ended.
    pub async fn under_way(&self, jobs: usize) -> Value {
        let known = |page: &Value| {
            let rows = page["report"].as_array().expect("rows");
            rows.iter().filter(|row| row["state"] == "open" || row["state"] == "won").count()
        };
        self.until("jobs are under way", |page| known(page) == jobs).await
    }

    /// All jobs that were bid on have ended by the gateway's own books.
    pub async fn settled(&self, jobs: usize) -> Vec<Value> {
        let ended = |page: &Value| {
            let rows = page["report"].as_array().expect("rows");
            rows.len() == jobs && rows.iter().all(|row| row["under_way"] == 0)
        };
        let page = self.until("all jobs have ended", ended).await;
        page["report"].as_array().expect("rows").clone()
    }

    /// One line of `/metrics`.
    pub async fn metric(&self, line: &str) -> f64 {
        gateway::metric(&self.gateway.get("/metrics").await.text(), line)
    }

    /// Runs `sluice` in the gateway's folder.
    pub fn run(&self, arguments: &[&str]) -> String {
        command::run(self.gateway.folder(), arguments, &VARIABLES).printed()
    }
}

/// Opens the market `m`. Auctions are held when the provider has bid, if the script says nothing else, and
/// a busy machine is no slow provider.
fn open(simulator: &Simulator, mut script: Value) {
    if script["accounts"].is_null() {
        script["accounts"] = json!([
            { "username": "p", "password": "secret", "api_key": MARKET_KEY, "balance": 10 },
            { "username": "q", "password": "secret", "api_key": OTHERS_KEY, "balance": 10 },
        ]);
    }
    for (table, member, value) in [
        ("requesters", "call_timeout_ms", 600_000),
        ("requesters", "slow_ms", 600_000),
        ("season", "open_ms", 600_000),
        ("season", "reward_timeout_ms", 600_000),
        ("season", "close_after_bids", 1),
    ] {
        if script[table][member].is_null() {
            script[table][member] = json!(value);
        }
    }
    let script = serde_json::from_value(script).expect("a script of a market");
    simulator.open_market("m", script).expect("the market opens");
}

/// What `[market]` says where a test says nothing else of it.
fn config(simulator: &Simulator, market: &Relay, door: &Relay, lines: &str) -> String {
    let usual = [
        ("base_url", format!("http://{}/_market/m", market.address())),
        ("endpoint", format!("http://{}/v1/completions/", door.address())),
        ("api_key", "env:MARKET_KEY".to_owned()),
        ("model", "serves".to_owned()),
        ("scan_every", "100ms".to_owned()),
        ("resync_every", "1s".to_owned()),
    ];
    let named =
        |key: &str| lines.lines().any(|line| line.trim_start_matches('#').trim_start().starts_with(key));
    let usual: String = usual
        .iter()
        .filter(|(key, _)| !named(key))
        .map(|(key, value)| format!("{key} = \"{value}\"\n"))
        .collect();
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"serves\"\ntargets = [{{ upstream = \"a\", model = \"big\", {PRICE}, max_output = 200 }}]\n\
         [market]\n{usual}{lines}\n",
        simulator.base_url("a"),
    )
}

/// Of the stand-in's amounts, as the gateway writes them.
pub fn usd(nanos: u64) -> String {
    let decimals = format!("{:09}", nanos % 1_000_000_000);
    let shown = decimals.trim_end_matches('0').len().max(2);
    format!("{}.{}", nanos / 1_000_000_000, &decimals[..shown])
}

/// The other way round.
pub fn nanos(usd: &Value) -> u64 {
    let amount: sluice_core::money::NanoUsd = usd.as_str().expect("a text").parse().expect("dollars");
    amount.nanos()
}

/// What a job's calls cost by the tokens that the market saw: a dollar a million, and two.
pub fn cost(instance: &InstanceRow) -> u64 {
    let tokens = instance.calls.iter().map(|call| {
        let of = |tokens: Option<u64>| tokens.unwrap_or_else(|| panic!("no usage in {call:?}"));
        of(call.prompt_tokens) + 2 * of(call.completion_tokens)
    });
    tokens.sum::<u64>() * 1000
}

/// The report's row of a job.
pub fn row<'r>(rows: &'r [Value], job: &str) -> &'r Value {
    rows.iter().find(|row| row["job"] == job).unwrap_or_else(|| panic!("no {job} in {rows:#?}"))
}

/// The market's row of a job.
pub fn instance<'b>(books: &'b MarketBooks, job: &str) -> &'b InstanceRow {
    books.instances.iter().find(|instance| instance.id == job).expect("it is in the books")
}

/// How often a strategy passed a job over for this reason.
pub fn passed_over(page: &Value, strategy: &str, why: &str) -> u64 {
    let strategies = page["strategies"].as_array().expect("rows");
    let of = strategies.iter().find(|row| row["name"] == strategy);
    of.and_then(|row| row["passed_over"][why].as_u64()).unwrap_or(0)
}
