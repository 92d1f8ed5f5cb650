//! Runs from outside: their end, how many there may be, and that no end gives a fresh cap.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use sluice_simulate::{Goal, Simulator};
use sluice_tests::gateway::{PATIENCE, question, send};
use sluice_tests::{Answer, Gateway, Options, command};
use tempfile::TempDir;

const KEY: [(&str, &str); 1] = [("KEY", "sk-of-the-test")];

/// Two days: a run may rest for less, and for more than half of it.
const LONG_S: i64 = 2 * 24 * 60 * 60;

/// A vendor behind a gateway with a budget for each run.
struct Scene {
    simulator: Simulator,
    gateway: Gateway,
}

async fn start(budget: &str) -> Scene {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[upstreams.a]\nadapter = \"openai\"\nbase_url = \"{}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n\
         [[models]]\nname = \"m\"\ntargets = [{{ upstream = \"a\", price = {{ input = \"1\", output = \"1\" }}, max_output = 100 }}]\n\
         [[budgets]]\nname = \"per-run\"\nper = \"run\"\ncap_usd = \"1.00\"\n{budget}\n",
        simulator.base_url("a"),
    );
    let gateway = Gateway::start(&config, &Options::with(&KEY));
    Scene { simulator, gateway }
}

impl Scene {
    fn seen(&self) -> usize {
        self.simulator.books().rows.len()
    }

    async fn admin(&self, path: &str, body: Value) -> Answer {
        send(self.gateway.client().post(self.gateway.url(path)).body(body.to_string())).await
    }

    async fn runs(&self) -> Vec<Value> {
        self.gateway.get("/admin/v1/runs?state=all").await.json()["runs"].as_array().unwrap().clone()
    }

    /// What `/admin/v1/runs` says of one.
    async fn state(&self, run: &str) -> Option<String> {
        let runs = self.runs().await;
        let row = runs.iter().find(|row| row["run"] == run)?;
        Some(row["state"].as_str().unwrap().into())
    }

    /// Ends the gateway in order, changes the database, and starts another on the same folder.
    fn meanwhile(self, change: impl FnOnce(&Path)) -> Scene {
        let folder: TempDir = self.gateway.ended_in_order();
        change(folder.path());
        Scene { simulator: self.simulator, gateway: Gateway::start_in(folder, &Options::with(&KEY)) }
    }
}

async fn ask(gateway: &Gateway, run: &str) -> Answer {
    send(gateway.chat_request(question("m", false).to_string()).header("x-sluice-run", run)).await
}

fn database(folder: &Path) -> Connection {
    let database = Connection::open(folder.join("data/sluice.db")).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database
}

/// As if a run had been drawn on so many seconds earlier.
fn ages(folder: &Path, run: &str, by_s: i64) {
    let change = "UPDATE runs SET used_s = used_s - ?2 WHERE scope = '/' || ?1 AND ended_s IS NULL";
    assert_eq!(database(folder).execute(change, rusqlite::params![run, by_s]).unwrap(), 1);
}

async fn until(what: &str, wait: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_closed_run_is_refused_and_what_is_under_way_is_settled() {
    let scene = start("").await;
    let gateway = &scene.gateway;
    assert_eq!(ask(gateway, "one").await.status, 200);
    assert_eq!(ask(gateway, "two").await.status, 200);
    let closed = scene.admin("/admin/v1/runs/close", json!({"run": "one"})).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    let seen = scene.seen();
    let refused = ask(gateway, "one").await;
    assert!(refused.refused(402, "run_closed").contains("\"one\" was closed"));
    assert_eq!((refused.header("x-should-retry"), scene.seen()), ("false", seen), "no vendor was asked");
    assert_eq!(ask(gateway, "two").await.status, 200, "the control");
    scene.admin("/admin/v1/runs/close", json!({"run": "one"})).await.refused(409, "already_ended");
    scene.admin("/admin/v1/runs/close", json!({"run": "three"})).await.refused(404, "unknown_run");
    for wrong in [json!({"run": ""}), json!({"run": "a b"}), json!({"run": "one", "key": "k"}), json!({})] {
        scene.admin("/admin/v1/runs/close", wrong).await.refused(400, "invalid_request");
    }
    gateway.get("/admin/v1/runs?colour=red").await.refused(400, "invalid_request");
    assert_eq!(
        (scene.state("one").await.as_deref(), scene.state("two").await.as_deref()),
        (Some("closed"), Some("open"))
    );
    let acts = gateway.get("/admin/v1/audit").await.json();
    let acts: Vec<_> = acts["acts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| (&act["act"], &act["subject"], &act["outcome"]))
        .collect();
    let act = json!("run.close");
    let wanted = [("/three", "unknown"), ("/one", "already_ended"), ("/one", "done")]
        .map(|(subject, outcome)| (json!(subject), json!(outcome)));
    assert!(
        acts.iter().copied().eq(wanted.iter().map(|(subject, outcome)| (&act, subject, outcome))),
        "{acts:?}"
    );
    let scene = scene.meanwhile(|_| {});
    ask(&scene.gateway, "one").await.refused(402, "run_closed");
}

/// A stream that has begun goes to its end, and costs what it costs.
#[tokio::test]
async fn a_stream_under_way_outlives_its_run() {
    let scene = start("").await;
    let script = json!({"reply": "a b c d e f", "chaos": {"seed": 1, "permille": 1000, "kinds": [{"kind": "drip", "ms": 100}]}});
    scene.simulator.direct("a", serde_json::from_value(script).unwrap());
    let request = scene.gateway.chat_request(question("m", true).to_string()).header("x-sluice-run", "long");
    let mut stream = request.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let mut text = stream.chunk().await.unwrap().unwrap().to_vec();
    let closed = scene.admin("/admin/v1/runs/close", json!({"run": "long"})).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    ask(&scene.gateway, "long").await.refused(402, "run_closed");
    while let Some(more) = stream.chunk().await.unwrap() {
        text.extend(more);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"), "{text}");
    let billed: u64 = scene
        .simulator
        .books()
        .rows
        .iter()
        .map(|row| row.billed.prompt_tokens + row.billed.completion_tokens)
        .sum();
    let folder = scene.gateway.ended_in_order();
    let settled = "SELECT settled FROM accounts WHERE scope = '/long'";
    let settled: i64 = database(folder.path()).query_row(settled, [], |found| found.get(0)).unwrap();
    assert_eq!(settled as u64, billed * 1000, "a dollar for a million tokens");
}

/// What the command line closes, the gateway that runs refuses when the command has ended.
#[tokio::test]
async fn the_command_line_closes_runs_of_a_gateway_that_runs() {
    let scene = start("").await;
    let run = |arguments: &[&str]| command::run(scene.gateway.folder(), arguments, &KEY);
    assert_eq!(ask(&scene.gateway, "cli").await.status, 200);
    let listed = run(&["run", "list"]);
    assert!(listed.stdout.contains("cli") && listed.stdout.contains("open"), "{listed:?}");
    let closed = run(&["run", "close", "cli"]);
    assert!(closed.code == Some(0) && closed.stderr.contains("the running gateway goes by it"), "{closed:?}");
    ask(&scene.gateway, "cli").await.refused(402, "run_closed");
    assert_eq!(run(&["run", "close", "cli"]).code, Some(1));
    assert_eq!(run(&["run", "close", "never"]).code, Some(1));
    assert!(!run(&["run", "list"]).stdout.contains("cli"));
    let all = run(&["run", "list", "--all"]);
    assert!(all.stdout.contains("closed 20"), "{all:?}");
    let folder = scene.gateway.ended_in_order();
    // Where nobody runs, it is done as well.
    database(folder.path()).execute("UPDATE runs SET ended_s = NULL, ended_by = NULL", []).unwrap();
    assert_eq!(command::run(folder.path(), &["run", "close", "cli"], &KEY).code, Some(0));
}

/// Idle over a restart: a run that comes back has ended, and one that was used a little later has not.
#[tokio::test]
async fn a_run_that_has_rested_is_refused_and_gets_no_fresh_cap() {
    let scene = start("idle = \"36h\"").await;
    for run in ["old", "young"] {
        assert_eq!(ask(&scene.gateway, run).await.status, 200);
    }
    assert_eq!(scene.gateway.ask("m").await.status, 200);
    let scene = scene.meanwhile(|folder| {
        ages(folder, "old", LONG_S);
        ages(folder, "young", LONG_S / 2);
    });
    let seen = scene.seen();
    for _ in 0..2 {
        let refused = ask(&scene.gateway, "old").await;
        assert!(refused.refused(402, "run_closed").contains("nobody drew on it"));
    }
    assert_eq!(scene.seen(), seen);
    assert_eq!(ask(&scene.gateway, "young").await.status, 200, "the control");
    assert_eq!(scene.gateway.ask("m").await.status, 200, "a key's own account is no run");
    // While it serves, too, and where nobody comes. It was drawn on just now: until that has been
    // written down, the change is taken back.
    let ended = async {
        while scene.state("young").await.as_deref() != Some("idle") {
            let change = "UPDATE runs SET used_s = used_s - ?1 WHERE ended_s IS NULL AND scope = '/young'";
            database(scene.gateway.folder()).execute(change, [LONG_S]).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    until("it has ended by itself", ended).await;
    ask(&scene.gateway, "young").await.refused(402, "run_closed");
}

#[tokio::test]
async fn nobody_has_more_runs_than_may_be() {
    let scene = start("runs_max = 2").await;
    for run in ["one", "two"] {
        assert_eq!(ask(&scene.gateway, run).await.status, 200);
    }
    let seen = scene.seen();
    for number in 0..30 {
        let refused = ask(&scene.gateway, &format!("invented-{number}")).await;
        assert!(refused.refused(429, "too_many_runs").contains("2 runs"));
        assert_eq!(refused.header("x-should-retry"), "false");
    }
    assert_eq!((scene.seen(), scene.runs().await.len()), (seen, 2));
    assert_eq!(ask(&scene.gateway, "one").await.status, 200);
    assert_eq!(scene.admin("/admin/v1/runs/close", json!({"run": "one"})).await.status, 200);
    assert_eq!(ask(&scene.gateway, "three").await.status, 200);
    let folder = scene.gateway.ended_in_order();
    let count = "SELECT count(*) FROM accounts";
    assert_eq!(database(folder.path()).query_row(count, [], |found| found.get::<_, u32>(0)).unwrap(), 3);
}

/// `idle` and `runs_max` hold from the moment on at which the configuration is taken.
#[tokio::test]
async fn a_changed_configuration_changes_how_many_there_may_be() {
    let scene = start("runs_max = 1").await;
    assert_eq!(ask(&scene.gateway, "one").await.status, 200);
    ask(&scene.gateway, "two").await.refused(429, "too_many_runs");
    let file = scene.gateway.folder().join("sluice.toml");
    let config = std::fs::read_to_string(&file).unwrap().replace("runs_max = 1", "runs_max = 2");
    std::fs::write(&file, config).unwrap();
    scene.gateway.wait_for("transition=\"config_reloaded\"", 1);
    assert_eq!(ask(&scene.gateway, "two").await.status, 200);
}

/// Names under which nothing could be spent take nobody's place.
#[tokio::test]
async fn a_run_that_is_refused_has_not_begun() {
    let all = "[[budgets]]\nname = \"everyone\"\nper = \"all\"\ncap_usd = \"0.000001\"";
    let scene = start(&format!("runs_max = 2\n{all}")).await;
    for run in ["one", "two", "three"] {
        ask(&scene.gateway, run).await.refused(402, "budget_exhausted");
    }
    assert_eq!(scene.runs().await.len(), 0);
    let file = scene.gateway.folder().join("sluice.toml");
    let config = std::fs::read_to_string(&file).unwrap().replace("0.000001", "1.00");
    std::fs::write(&file, config).unwrap();
    scene.gateway.wait_for("transition=\"config_reloaded\"", 1);
    for run in ["four", "five"] {
        assert_eq!(ask(&scene.gateway, run).await.status, 200);
    }
    ask(&scene.gateway, "six").await.refused(429, "too_many_runs");
}

/// A vendor bills and breaks, the next one is silent, and the gateway is killed: what the call had cost
/// by then is in the ledger, under its run.
#[tokio::test]
async fn what_a_call_had_cost_before_a_kill_is_its_runs() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let upstream = |name: &str| {
        let url = simulator.base_url(name);
        format!(
            "[upstreams.{name}]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n"
        )
    };
    let target = |name: &str, priority: u32| {
        format!(
            "{{ upstream = \"{name}\", priority = {priority}, price = {{ input = \"1\", output = \"1\" }}, max_output = 100 }}"
        )
    };
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{}{}[[models]]\nname = \"m\"\ntargets = [{}, {}]\n\
         [[budgets]]\nname = \"per-run\"\nper = \"run\"\ncap_usd = \"1.00\"\n",
        upstream("a"),
        upstream("b"),
        target("a", 1),
        target("b", 2),
    );
    let direct =
        |vendor: &str, script: Value| simulator.direct(vendor, serde_json::from_value(script).unwrap());
    direct("a", json!({"faults": [{"kind": "malformed_json", "times": 0}]}));
    direct("b", json!({"faults": [{"kind": "hang", "at": "headers", "times": 0}]}));
    let gateway = Gateway::start(&config, &Options::with(&KEY));
    let request = gateway.chat_request(question("m", false).to_string()).header("x-sluice-run", "dying");
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(request.send());
    tokio::time::timeout(PATIENCE, simulator.books_when(Goal::Arrived(2))).await.unwrap();
    let folder = gateway.crash();
    asking.shutdown().await;
    let folder = Gateway::start_in(folder, &Options::with(&KEY)).ended_in_order();
    let database = database(folder.path());
    let call = "SELECT run, upstream, outcome, cost FROM calls";
    let call: (String, String, String, i64) =
        database.query_row(call, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    let (run, asked, outcome, cost) = call;
    assert_eq!((&*run, &*asked, &*outcome), ("dying", "a", "interrupted"));
    let number = |text: &str| database.query_row(text, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("SELECT settled FROM accounts"), cost, "what was settled has its row");
    assert_eq!((number("SELECT count(*) FROM in_doubt"), number("SELECT sum(cost) FROM usage")), (1, cost));
    assert!(cost > 0 && number("SELECT in_doubt FROM accounts") > 0);
}
