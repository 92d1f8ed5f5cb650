//! What a model costs where its target does not say, and what `sluice models` says of it. Vendors, models
//! and prices are read from the shipped files, which change.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::money::NanoUsd;
use sluice_tests::command::{Run, run};
use sluice_tests::stage::Vendor;
use sluice_tests::workspace::root;
use sluice_tests::{Gateway, Options, Stage};

const VARIABLES: [(&str, &str); 1] = [("KEY", "sk-canary-of-the-models")];

/// The first row of the shipped list that has an alias, and its vendor's address.
struct Listed {
    row: toml::Value,
    base_url: String,
}

impl Listed {
    fn shipped() -> Listed {
        let read = |file| std::fs::read_to_string(root().join("plugins").join(file)).unwrap();
        let list: toml::Value = toml::from_str(&read("prices.toml")).unwrap();
        let vendors: toml::Value = toml::from_str(&read("vendors.toml")).unwrap();
        let rows = list["model"].as_array().unwrap();
        let row = rows.iter().find(|row| row.get("aliases").is_some() && !is_wire_of_its_own(&vendors, row));
        let row = row.unwrap().clone();
        let base_url = vendors[row["vendor"].as_str().unwrap()]["base_url"].as_str().unwrap().to_owned();
        Listed { row, base_url }
    }

    fn text(&self, key: &str) -> &str {
        self.row[key].as_str().unwrap()
    }

    fn dollars(&self, key: &str) -> String {
        self.text(key).parse::<NanoUsd>().unwrap().to_string()
    }
}

fn is_wire_of_its_own(vendors: &toml::Value, row: &toml::Value) -> bool {
    vendors[row["vendor"].as_str().unwrap()]["adapter"].as_str() != Some("openai")
}

fn upstream(name: &str, base_url: &str) -> String {
    format!(
        "[upstreams.{name}]\nadapter = \"openai\"\nbase_url = \"{base_url}\"\nsecrets = {{ api-key = \"env:KEY\" }}\n"
    )
}

fn model(name: &str, targets: &str) -> String {
    format!("[[models]]\nname = \"{name}\"\ntargets = [{targets}]\n")
}

fn budget(cap: &str) -> String {
    format!("[[budgets]]\nname = \"all\"\nper = \"all\"\ncap_usd = \"{cap}\"\n")
}

fn models(config: &str, arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sluice.toml"), config).unwrap();
    run(folder.path(), &[&["models"], arguments].concat(), &VARIABLES)
}

/// The only target of a model, as JSON.
fn target(config: &str, name: &str) -> Value {
    let run = models(config, &[name, "--json"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let page: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(page["targets"].as_array().unwrap().len(), 1, "{page:#}");
    page["targets"][0].clone()
}

fn nanos(dollars: &str) -> u64 {
    dollars.parse::<NanoUsd>().unwrap().nanos()
}

async fn at_rest(stage: &Stage) {
    let wait = async {
        while stage.metric("sluice_spending_holds").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), wait).await.expect("at rest nothing is held");
}

#[test]
fn a_vendor_by_its_address_has_the_lists_prices_and_nobody_else_does() {
    let listed = Listed::shipped();
    let (name, url) = (listed.text("name"), listed.base_url.as_str());
    let config =
        |url: &str| upstream("v", url) + &model("m-*", &format!("{{ upstream = \"v\", model = {name:?} }}"));
    for same in [url.to_owned(), format!("{url}/"), url.replace("https://", "HTTPS://")] {
        let target = target(&config(&same), "m-1");
        assert_eq!(target["price"]["input"], json!(listed.dollars("input")), "{same}: {target:#}");
        assert_eq!(target["price"]["output"], json!(listed.dollars("output")), "{same}: {target:#}");
        assert_eq!(target["context"].as_i64(), listed.row["context"].as_integer(), "{target:#}");
        assert_eq!(target["max_output"].as_i64(), listed.row["max_output"].as_integer(), "{target:#}");
        assert_eq!(target["price_by"], "list");
        assert_eq!(target["price_source"], listed.text("source"));
        assert_eq!(target["price_date"], listed.text("date"));
    }
    let path = format!("{url}/eu");
    for other in ["http://127.0.0.1:9/v1", &url.replace("https://", "http://"), &path] {
        let target = target(&config(other), "m-1");
        assert_eq!(
            (&target["price"], &target["context"]),
            (&Value::Null, &Value::Null),
            "{other}: {target:#}"
        );
    }
}

#[test]
fn what_is_said_nearer_wins() {
    let listed = Listed::shipped();
    let (name, alias) = (listed.text("name"), listed.row["aliases"][0].as_str().unwrap());
    let base = upstream("v", &listed.base_url) + &model("v/*", "{ upstream = \"v\", model = \"*\" }");
    let asked = format!("v/{name}");
    let prices = format!(
        "[[prices]]\nupstream = \"v\"\nmodel = {name:?}\ninput = \"1.5\"\noutput = \"2.5\"\nmax_output = 77\n"
    );
    let corrected = target(&(base.clone() + &prices), &asked);
    assert_eq!((&corrected["price"]["input"], &corrected["price_by"]), (&json!("1.50"), &json!("prices")));
    assert_eq!(corrected["price"]["cached_input"], Value::Null, "a price is replaced whole: {corrected:#}");
    assert_eq!(corrected["price"]["tiers"], json!([]), "{corrected:#}");
    assert_eq!(corrected["max_output"], 77);
    assert_eq!(corrected["context"].as_i64(), listed.row["context"].as_integer(), "bounds are not");
    let alias = target(&(base.clone() + &prices), &format!("v/{alias}"));
    assert_eq!(alias["price_by"], "list", "it is for one name: {alias:#}");
    let own = format!(
        "{{ upstream = \"v\", model = {name:?}, context = 5000, price = {{ input = \"9\", output = \"8\" }} }}"
    );
    let own = target(&(base + &prices + &model("own", &own)), "own");
    assert_eq!((&own["price"]["input"], &own["price_by"]), (&json!("9.00"), &json!("target")));
    assert_eq!((&own["context"], &own["max_output"]), (&json!(5000), &json!(77)), "{own:#}");
}

/// No address is asked: what a call may cost is known before.
#[tokio::test]
async fn under_a_budget_a_vendor_is_priced_and_a_stand_in_for_it_is_not() {
    let listed = Listed::shipped();
    let name = listed.text("name");
    let real =
        upstream("real", &listed.base_url) + &model("real/*", "{ upstream = \"real\", model = \"*\" }");
    let config = model(name, "{ upstream = \"a\" }") + &real + &budget("0.000000001");
    let stage = Stage::start("", &[Vendor::openai("a", "")], &config).await;
    let message = stage.ask(name, false).await.refused(402, "unpriced");
    assert!(message.contains(name), "{message}");
    assert_eq!(stage.seen("a"), 0, "nothing was sent");
    stage.ask(&format!("real/{name}"), false).await.refused(402, "budget_exhausted");
    stage.ask("real/nobody-has-priced-this", false).await.refused(402, "unpriced");
}

/// By the stand-in's own books; the model is known only when it is asked for.
#[tokio::test]
async fn a_price_from_prices_is_charged_and_its_bounds_are_kept_to() {
    let prices = |input, output| {
        format!(
            "[[prices]]\nupstream = \"a\"\nmodel = \"priced\"\nmax_output = 50\ninput = {input:?}\noutput = {output:?}\n"
        )
    };
    let without = model("*", "{ upstream = \"a\" }") + &budget("1");
    let vendors = [Vendor::openai("a", "")];
    let stage = Stage::start("", &vendors, &without).await;
    stage.ask("priced", false).await.refused(402, "unpriced");
    assert_eq!(stage.seen("a"), 0);
    stage.reconfigure("", &vendors, &(without + &prices("100", "1000")), 1);
    stage.ask("priced", false).await.content();
    stage.ask("other", false).await.refused(402, "unpriced");
    at_rest(&stage).await;
    let rows = stage.finished(1).await;
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let billed = rows[0].billed;
    let cost = billed.prompt_tokens * nanos("0.0001") + billed.completion_tokens * nanos("0.001");
    assert!(cost > 0);
    assert_eq!(stage.metric("sluice_spending_settled_nanodollars").await, cost as f64);
    let sent: Value = serde_json::from_slice(&rows[0].body).unwrap();
    assert_eq!(sent["max_tokens"], 50, "the limit that was paid for: {sent:#}");
}

#[tokio::test]
async fn a_model_without_output_is_held_for_its_input_and_gets_no_limit() {
    let prices =
        "[[prices]]\nupstream = \"a\"\nmodel = \"m\"\nmax_output = 0\ninput = \"100\"\noutput = \"0\"\n";
    let config = model("m", "{ upstream = \"a\" }") + &budget("1") + prices;
    let stage = Stage::start("", &[Vendor::openai("a", "")], &config).await;
    stage.ask("m", false).await.content();
    at_rest(&stage).await;
    let row = stage.finished(1).await.remove(0);
    let sent: Value = serde_json::from_slice(&row.body).unwrap();
    assert_eq!(sent.get("max_tokens"), None, "{sent:#}");
    let cost = row.billed.prompt_tokens * nanos("0.0001");
    assert_eq!(stage.metric("sluice_spending_settled_nanodollars").await, cost as f64);
}

/// Policies are shown such prices too.
#[tokio::test]
async fn the_cheapest_is_found_by_prices_that_no_target_has() {
    let prices = |upstream, input| {
        format!("[[prices]]\nupstream = \"{upstream}\"\nmodel = \"m\"\ninput = \"{input}\"\noutput = \"1\"\n")
    };
    let targets = "{ upstream = \"dear\" }, { upstream = \"cheap\" }";
    let config = format!(
        "[[models]]\nname = \"*\"\npolicy = \"cheapest\"\ntargets = [{targets}]\n{}{}",
        prices("dear", "5"),
        prices("cheap", "2")
    );
    let vendors = [Vendor::openai("dear", ""), Vendor::openai("cheap", "")];
    let stage = Stage::start("", &vendors, &config).await;
    stage.ask("m", false).await.content();
    assert_eq!((stage.seen("dear"), stage.seen("cheap")), (0, 1));
}

#[test]
fn all_models_are_listed_with_who_says_what_they_cost() {
    let full = root().join("examples/full.toml");
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("GROQ_API_KEY", "sk-canary-of-the-models"),
        ("MISTRAL_API_KEY", "sk-canary-of-the-models"),
        ("ANTHROPIC_API_KEY", "sk-canary-of-the-models"),
        ("SLUICE_ADMIN_KEY", "sk-canary-of-the-models"),
        ("MARKET_API_KEY", "sk-canary-of-the-models"),
        ("SLUICE_MASTER_KEY", &"0c".repeat(32)),
    ];
    let full = full.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let run = run(folder.path(), &[&["models", "--config", full], arguments].concat(), &variables);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(!run.printed().contains("canary"), "{run:?}");
        run.stdout
    };
    let text = run(&[]);
    let line = |name: &str| {
        text.lines()
            .find(|line| line.trim_start().starts_with(name))
            .unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    for part in ["groq", "llama-3.1-8b-instant", "0.05", "0.08", "cached 0.025", "131,072", "full.toml:"] {
        assert!(line("fast").contains(part), "no {part} in {}", line("fast"));
    }
    assert!(line("echo").contains("it answers by itself"), "{text}");
    assert!(line("anthropic/*").contains("by the name"), "{text}");
    assert!(
        line("anthropic/claude").contains("the list, 20") && line("anthropic/claude").contains("https://")
    );
    // Columns: `its model` begins at one place in all lines.
    let column = text.lines().find_map(|line| line.find("its model")).unwrap();
    assert!(
        line("fast")[column..].starts_with("llama") && line("echo")[column..].starts_with("echo"),
        "{text}"
    );
    let page: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let rows = page["models"].as_array().unwrap();
    assert_eq!(rows.len(), text.lines().skip_while(|line| !line.starts_with("model ")).count() - 2, "{text}");
    let fast = rows.iter().find(|row| row["name"] == "fast").unwrap();
    assert_eq!((&fast["policy"], &fast["targets"][0]["key_set"]), (&json!("cheapest"), &json!(true)));
}

#[test]
fn one_model_is_explained() {
    let listed = Listed::shipped();
    let alias = listed.row["aliases"][0].as_str().unwrap();
    let config = upstream("v", &listed.base_url)
        + &model("*", "{ upstream = \"v\" }")
        + &model("v/*", "{ upstream = \"v\", model = \"*\" }")
        + "[[prices]]\nupstream = \"v\"\nmodel = \"own\"\ncontext = 9000\ninput = \"2\"\ncache_write = \"4\"\noutput = \"10\"\n"
        + "tiers = [{ above_input = 5000, input = \"3\", output = \"20\" }]\n"
        + &budget("1");
    let explained = |name: &str| {
        let run = models(&config, &[name]);
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout
    };
    let own = explained("v/own");
    for part in [
        "entry    \"v/*\", sluice.toml:",
        "it also matches *",
        "policy   priority",
        "1. v, its model \"own\"",
        "9,000 tokens",
        "[[prices]], sluice.toml:",
        "up to 5,000 of input",
        "above 5,000",
        // 1,000 × 2 + 500 × 10 a million, and with the input all written to a cache.
        "1,000 tokens of input and 500 of output: 0.007 USD, at worst 0.009 USD",
    ] {
        assert!(own.contains(part), "no {part:?} in\n{own}");
    }
    let page = explained(&format!("v/{alias}"));
    for part in
        [listed.text("source"), listed.text("date"), &format!("there it is {:?}", listed.text("name"))]
    {
        assert!(page.contains(part), "no {part:?} in\n{page}");
    }
    let unpriced = explained("v/owm");
    assert!(unpriced.contains("refused, since the budget \"all\" wants a price"), "{unpriced}");
    assert!(unpriced.contains("there are prices of own"), "{unpriced}");
}

#[test]
fn a_name_that_nobody_serves_fails_and_says_what_is_near() {
    let config = upstream("v", "http://127.0.0.1:9") + &model("fast", "{ upstream = \"v\" }");
    let run = models(&config, &["fsat"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.is_empty() && run.stderr.contains("no model \"fsat\"; did you mean fast?"), "{run:?}");
    let run = models(&config, &["zzz"]);
    assert!(run.code == Some(1) && run.stderr.contains("there are: fast"), "{run:?}");
    let run = models("x = 1\n", &[]);
    assert_eq!(run.code, Some(64), "{run:?}");
}

/// Without a file, too; and what clients see of a model is what it was.
#[tokio::test]
async fn the_built_in_configuration_has_prices_and_says_which_keys_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    let key = [("OPENAI_API_KEY", "sk-canary-of-the-models")];
    let run = run(folder.path(), &["models", "--json"], &key);
    assert_eq!(run.code, Some(0), "{run:?}");
    let page: Value = serde_json::from_str(&run.stdout).unwrap();
    let rows = page["models"].as_array().unwrap();
    let priced = rows.iter().filter(|row| row["targets"][0]["price_by"] == "list");
    assert!(priced.count() >= 20, "{page:#}");
    assert!(rows.iter().any(|row| row["name"] == "openai/*"), "{page:#}");
    let absent = page["absent"].as_array().unwrap();
    assert!(absent.contains(&json!({"name": "groq/*", "key": "GROQ_API_KEY"})), "{page:#}");
    assert!(!absent.iter().any(|row| row["name"] == "openai/*"), "{page:#}");
    std::fs::write(
        folder.path().join("sluice.toml"),
        "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned()
            + &upstream("v", &Listed::shipped().base_url)
            + &model("v/*", "{ upstream = \"v\", model = \"*\" }"),
    )
    .unwrap();
    let gateway = Gateway::start_in(folder, &Options::with(&VARIABLES));
    let list = gateway.get("/v1/models").await.json();
    let row = list["data"][0].as_object().unwrap();
    let members: Vec<&str> = row.keys().map(String::as_str).collect();
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list:#}");
    assert_eq!(members, ["created", "id", "object", "owned_by"], "{list:#}");
}
