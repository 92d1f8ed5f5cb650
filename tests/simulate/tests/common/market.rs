//! A participant of a market, by plain HTTP, and the ends of a season.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_simulate::{InstanceRow, MarketBooks, Simulator};

use super::{Answer, exchange, soon};

/// Somebody with a key, or a login, or nothing, at the market `m`.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// A header's line.
    pub(crate) credentials: String,
}

// === impl Client ===

impl Client {
    pub(crate) fn with_key(simulator: &Simulator, key: &str) -> Client {
        Client { address: simulator.address(), credentials: format!("x-api-key: {key}") }
    }

    pub(crate) fn with_token(simulator: &Simulator, token: &str) -> Client {
        Client { address: simulator.address(), credentials: format!("authorization: Bearer {token}") }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &body.to_string()).await
    }

    /// Asks the market for a path below its base URL.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_url(method, &format!("/_market/m{path}"), body).await
    }

    pub(crate) async fn ask_url(&self, method: &str, target: &str, body: &str) -> Answer {
        let request = super::request(method, target, body);
        exchange(self.address, &request.replace("authorization: Bearer k", &self.credentials)).await
    }

    /// Proposes to do it at the endpoint of vendor `a`.
    pub(crate) async fn propose(&self, id: &str, bid: &str) -> Answer {
        let endpoint = format!("http://{}/a/v1/chat/completions", self.address);
        let body = format!(r#"{{"endpoint": "{endpoint}", "max_bid": {bid}, "endpoint_api_key": "k"}}"#);
        self.ask("POST", &format!("/v1/proposals/create/for-instance/{id}"), &body).await
    }

    /// The wallet, digit by digit.
    pub(crate) async fn wallet(&self) -> String {
        number(&self.get("/v1/payment/balance").await, "wallet_balance")
    }
}

/// A simulator with a market `m` of this script, and an account `p` in it that
/// has the key `key` and 10 dollars; also `q`, with `other` and nothing.
pub(crate) async fn opened(mut script: Value) -> Simulator {
    script["accounts"] = json!([
        { "username": "p", "password": "secret", "api_key": "key", "balance": 10 },
        { "username": "q", "password": "secret", "api_key": "other" },
    ]);
    // A busy machine is not a slow provider, and auctions are held when all have bid.
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
    let simulator = super::scripted(json!({ "key": "k" })).await;
    simulator.open_market("m", serde_json::from_value(script).unwrap()).unwrap();
    simulator
}

/// Puts an instance on the market; the answer is its id.
pub(crate) async fn give(simulator: &Simulator, given: Value) -> String {
    let request = super::request("POST", "/_simulate/markets/m/instances", &given.to_string());
    let answer = exchange(simulator.address(), &request).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body()));
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// The books as soon as so many instances are final.
pub(crate) async fn finals(simulator: &Simulator, instances: usize) -> MarketBooks {
    soon(simulator.market_books_when("m", instances)).await.unwrap()
}

/// The only instance, once it is final.
pub(crate) async fn only_instance(simulator: &Simulator) -> InstanceRow {
    let mut instances = finals(simulator, 1).await.instances;
    assert_eq!(instances.len(), 1);
    instances.remove(0)
}

/// A member's number as it is written.
pub(crate) fn number(answer: &Answer, name: &str) -> String {
    let body = answer.body();
    let members: HashMap<String, &RawValue> = serde_json::from_slice(&body).unwrap();
    members[name].get().to_owned()
}

/// The details of a refusal, as one text.
pub(crate) fn detail(answer: &Answer) -> String {
    answer.json()["detail"].to_string()
}
