//! A gateway that bids on a stand-in market and serves what it wins.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_simulate::{MarketBooks, Simulator};
use tempfile::TempDir;

use crate::gateway::{self, PATIENCE};
use crate::{Gateway, Options, command};

/// The vendor's key, and that of the market.
pub const VARIABLES: [(&str, &str); 2] = [("KEY", "sk-of-the-test"), ("MARKET_KEY", "mk-of-the-test")];

/// Dollars for a million tokens of the vendor, input and output, where a test says nothing else.
pub const PRICE: [u64; 2] = [1, 2];

/// A market, a vendor, and a gateway between them.
pub struct Fair {
    pub simulator: Simulator,
    pub gateway: Gateway,
    price: [u64; 2],
}

impl Fair {
    /// Opens the market with this script, whose account has ten dollars, and starts a gateway with these
    /// lines in its `[market]`.
    pub async fn start(script: Value, market: &str) -> Fair {
        Fair::priced(PRICE, script, market).await
    }

    /// The same, with a vendor at this price: dollars for a million tokens, input and output.
    pub async fn priced(price: [u64; 2], script: Value, market: &str) -> Fair {
        let simulator = Simulator::start("127.0.0.1:0").await.expect("the stand-in starts");
        open(&simulator, script);
        let gateway = Gateway::start(&config(&simulator, None, price, market), &Options::with(&VARIABLES));
        let fair = Fair { simulator, gateway, price };
        fair.configure(market);
        fair
    }

    /// Writes the configuration anew, with where the gateway listens, and waits until it serves.
    pub fn configure(&self, market: &str) {
        let text = config(&self.simulator, Some(self.gateway.address()), self.price, market);
        let file = self.gateway.folder().join("sluice.toml");
        if std::fs::read_to_string(&file).is_ok_and(|before| before == text) {
            return;
        }
        let before = self.gateway.log().matches("transition=\"config_reloaded\"").count();
        std::fs::write(file, text).expect("it is written");
        self.gateway.wait_for("transition=\"config_reloaded\"", before + 1);
    }

    /// The same market, and another gateway on the same data. It listens elsewhere.
    pub async fn restarted(self, ended: impl FnOnce(Gateway) -> TempDir, market: &str) -> Fair {
        let folder = ended(self.gateway);
        let fair = Fair {
            simulator: self.simulator,
            gateway: Gateway::start_in(folder, &Options::with(&VARIABLES)),
            price: self.price,
        };
        fair.configure(market);
        fair
    }

    /// Puts a job on the market, and gives its id.
    pub async fn give(&self, job: Value) -> String {
        let url = format!("http://{}/_simulate/markets/m/instances", self.simulator.address());
        let answer = gateway::send(self.gateway.client().post(url).body(job.to_string())).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
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

    /// All jobs that were bid on have ended by the gateway's own books.
    pub async fn settled(&self, jobs: usize) -> Vec<Value> {
        let ended = |page: &Value| {
            let rows = page["report"].as_array().expect("rows");
            rows.len() == jobs && rows.iter().all(|row| row["under_way"] == 0)
        };
        let page = self.until("all jobs have ended", ended).await;
        page["report"].as_array().expect("rows").clone()
    }

    /// Runs `sluice` in the gateway's folder.
    pub fn run(&self, arguments: &[&str]) -> String {
        command::run(self.gateway.folder(), arguments, &VARIABLES).printed()
    }
}

/// Opens the market `m`. Auctions are held when the provider has bid, if the script says nothing else, and
/// a busy machine is no slow provider.
pub fn open(simulator: &Simulator, mut script: Value) {
    if script["accounts"].is_null() {
        script["accounts"] =
            json!([{ "username": "p", "password": "secret", "api_key": "mk-of-the-test", "balance": 10 }]);
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

/// `address`: where the gateway listens, once that is known. `price`: as of [`Fair::priced`].
pub fn config(simulator: &Simulator, address: Option<&str>, price: [u64; 2], market: &str) -> String {
    let [input, output] = price;
    let endpoint = address
        .map_or_else(String::new, |address| format!("endpoint = \"http://{address}/v1/completions/\"\n"));
    let api_key = if market.contains("api_key") { "" } else { "api_key = \"env:MARKET_KEY\"\n" };
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"serves\"\ntargets = [{{ upstream = \"a\", model = \"big\", price = {{ input = \"{input}\", output = \"{output}\" }}, max_output = 200 }}]\n\
         [market]\nbase_url = \"{}\"\nmodel = \"serves\"\nscan_every = \"100ms\"\nresync_every = \"1s\"\n{endpoint}{api_key}{market}\n",
        simulator.base_url("a"),
        simulator.market_url("m"),
    )
}
