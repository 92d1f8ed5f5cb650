//! A gateway in front of a stand-in, with as many vendors as are named.

use serde_json::Value;
use sluice_simulate::{Goal, Row, Simulator};

use crate::gateway::{Gateway, Options, PATIENCE, question, send};
use crate::{Answer, gateway};

/// What the gateway signs with.
pub const KEY: &str = "sk-of-the-stage";

/// The gateway's allocator gives back what is freed when it is: what the process holds is what it
/// needs, without what the allocator kept for later.
const FREED_AT_ONCE: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

/// Both of them.
pub struct Stage {
    pub simulator: Simulator,
    pub gateway: Gateway,
}

/// A vendor as the configuration has it.
#[derive(Clone, Copy, Debug)]
pub struct Vendor<'a> {
    pub name: &'a str,
    pub adapter: &'a str,
    /// More lines of its section.
    pub more: &'a str,
}

impl<'a> Vendor<'a> {
    pub fn openai(name: &'a str, more: &'a str) -> Vendor<'a> {
        Vendor { name, adapter: "openai", more }
    }
}

impl Stage {
    /// Starts both. `server` is lines of that section, `models` the rest of the configuration.
    pub async fn start(server: &str, vendors: &[Vendor<'_>], models: &str) -> Stage {
        let simulator = Simulator::start("127.0.0.1:0").await.expect("the stand-in listens");
        let config = config(&simulator, server, vendors, models);
        let gateway = Gateway::start(&config, &Options::with(&[("KEY", KEY), FREED_AT_ONCE]));
        Stage { simulator, gateway }
    }

    /// Puts a vendor's script.
    pub fn direct(&self, vendor: &str, script: Value) {
        let script = serde_json::from_value(script).expect("a script");
        self.simulator.direct(vendor, script);
    }

    /// Asks a model a plain question.
    pub async fn ask(&self, model: &str, stream: bool) -> Answer {
        self.gateway.chat(question(model, stream).to_string()).await
    }

    /// Requests that a vendor has seen since the books were begun.
    pub fn seen(&self, vendor: &str) -> usize {
        self.simulator.books().rows.iter().filter(|row| row.vendor == vendor).count()
    }

    /// The rows as soon as so many requests have arrived.
    pub async fn arrived(&self, requests: usize) -> Vec<Row> {
        self.rows(Goal::Arrived(requests)).await
    }

    /// The rows as soon as so many requests have ended.
    pub async fn finished(&self, requests: usize) -> Vec<Row> {
        self.rows(Goal::Finished(requests)).await
    }

    async fn rows(&self, goal: Goal) -> Vec<Row> {
        let books = tokio::time::timeout(PATIENCE, self.simulator.books_when(goal)).await;
        books.unwrap_or_else(|_| panic!("{goal:?} is not reached: {:#?}", self.simulator.books())).rows
    }

    /// What `/admin/v1/breakers` has on a vendor's only model.
    pub async fn breaker(&self, vendor: &str) -> Value {
        self.breaker_where(|row| row["upstream"] == vendor).await
    }

    async fn breaker_where(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        let page = self.gateway.get("/admin/v1/breakers").await.json();
        let rows = page["breakers"].as_array().expect("a list");
        rows.iter().find(|row| is_it(row)).unwrap_or_else(|| panic!("it is not in {page:#}")).clone()
    }

    /// The state of the breaker of one of a vendor's models.
    pub async fn breaker_state_of(&self, vendor: &str, model: &str) -> String {
        let row = self.breaker_where(|row| row["upstream"] == vendor && row["model"] == model).await;
        row["state"].as_str().expect("a state").to_owned()
    }

    /// Its state alone.
    pub async fn breaker_state(&self, vendor: &str) -> String {
        self.breaker(vendor).await["state"].as_str().expect("a state").to_owned()
    }

    /// Closes a breaker by hand.
    pub async fn reset(&self, vendor: &str, model: &str) -> Answer {
        let url = self.gateway.url(&format!("/admin/v1/breakers/{vendor}/{model}/reset"));
        send(self.gateway.client().post(url)).await
    }

    /// Writes the configuration anew and waits until it serves.
    pub fn reconfigure(&self, server: &str, vendors: &[Vendor<'_>], models: &str, time: usize) {
        let text = config(&self.simulator, server, vendors, models);
        std::fs::write(self.gateway.folder().join("sluice.toml"), text).expect("it is written");
        self.gateway.wait_for("transition=\"config_reloaded\"", time);
    }

    /// The value of one line of `/metrics`, by its name and labels.
    pub async fn metric(&self, line: &str) -> f64 {
        gateway::metric(&self.gateway.get("/metrics").await.text(), line)
    }
}

fn config(simulator: &Simulator, server: &str, vendors: &[Vendor<'_>], models: &str) -> String {
    let section = |vendor: &Vendor<'_>| {
        let Vendor { name, adapter, more } = vendor;
        let url = simulator.base_url(name);
        format!(
            "[upstreams.{name}]\nadapter = \"{adapter}\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n{more}\n"
        )
    };
    let vendors: String = vendors.iter().map(section).collect();
    format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n{vendors}{models}\n")
}

/// A section of a model whose targets are asked in this order.
pub fn model(name: &str, targets: &[&str], more: &str) -> String {
    let targets: Vec<String> = (1..)
        .zip(targets)
        .map(|(priority, vendor)| format!("{{ upstream = \"{vendor}\", priority = {priority} }}"))
        .collect();
    format!("[[models]]\nname = \"{name}\"\n{more}\ntargets = [{}]\n", targets.join(", "))
}
