//! The policy's order decides, shown by the stand-in's own books.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use sluice_simulate::Simulator;
use sluice_tests::{Gateway, Options};

const KEYS: [(&str, &str); 2] = [("KEY_A", "key-a"), ("KEY_B", "key-b")];

/// Two vendors of one stand-in; `a` stands first.
fn config(simulator: &Simulator, models: &str) -> String {
    let mut config = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (vendor, key) in [("a", "KEY_A"), ("b", "KEY_B")] {
        let url = simulator.base_url(vendor);
        config += &format!(
            "[upstreams.{vendor}]\nadapter = \"openai\"\nbase_url = \"{url}\"\nsecrets = {{ api-key = \"env:{key}\" }}\n"
        );
    }
    config + models
}

fn priced(name: &str, policy: &str, a: &str, b: &str) -> String {
    let target = |upstream: &str, output: &str| {
        format!(
            r#"{{ upstream = "{upstream}", model = "{upstream}-model", price = {{ input = "1", output = "{output}" }} }}"#
        )
    };
    format!(
        "[[models]]\nname = \"{name}\"\npolicy = \"{policy}\"\ntargets = [ {}, {} ]\n",
        target("a", a),
        target("b", b)
    )
}

/// Which vendors were asked, in order, with which key and model; the books are empty afterwards.
fn asked(simulator: &Simulator) -> Vec<(String, String, String)> {
    let rows = simulator.books().rows;
    simulator.clear_books();
    let key = |headers: &[(String, String)]| {
        headers
            .iter()
            .find(|(name, _)| name == "authorization")
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    };
    rows.into_iter().map(|row| (row.vendor, key(&row.headers), row.model.unwrap_or_default())).collect()
}

fn only(vendor: &str) -> Vec<(String, String, String)> {
    vec![(vendor.into(), format!("Bearer key-{vendor}"), format!("{vendor}-model"))]
}

#[tokio::test]
async fn the_cheaper_target_is_asked_and_a_swap_of_prices_swaps_them() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    // `dear-a` and `dear-b` are the same but for their prices.
    let models = priced("dear-a", "cheapest", "2.5", "0.5") + &priced("dear-b", "cheapest", "0.5", "2.5");
    let gateway = Gateway::start(&config(&simulator, &models), &Options::with(&KEYS));
    for (model, cheap) in [("dear-a", "b"), ("dear-b", "a"), ("dear-a", "b")] {
        assert_eq!(gateway.ask(model).await.content(), "You said: one two three");
        assert_eq!(asked(&simulator), only(cheap), "{model}");
    }
    assert_eq!(gateway.counters("cheapest").await.calls("rank"), 3);
    assert_eq!(gateway.counters("priority").await.calls("rank"), 0);
}

#[tokio::test]
async fn a_priority_goes_before_the_price_and_one_target_needs_no_policy() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let target = |upstream: &str, more: &str| {
        format!("{{ upstream = \"{upstream}\", model = \"{upstream}-model\"{more} }}")
    };
    let model = |name: &str, policy: &str, targets: &[String]| {
        format!("[[models]]\nname = \"{name}\"\n{policy}targets = [{}]\n", targets.join(", "))
    };
    let price = ", priority = 2, price = { input = \"0.1\", output = \"0.1\" }";
    let models = [
        model("a-first", "", &[target("a", ", priority = 1"), target("b", price)]),
        model("b-first", "", &[target("a", price), target("b", ", priority = 1")]),
        model("equal", "", &[target("b", ""), target("a", "")]),
        // The same two with another policy: its order is the other.
        model("by-price", "policy = \"cheapest\"\n", &[target("a", ", priority = 1"), target("b", price)]),
        model("single", "policy = \"cheapest\"\n", &[target("b", "")]),
    ];
    let gateway = Gateway::start(&config(&simulator, &models.concat()), &Options::with(&KEYS));
    for (model, vendor) in [("a-first", "a"), ("b-first", "b"), ("equal", "b"), ("by-price", "b")] {
        assert_eq!(gateway.ask(model).await.content(), "You said: one two three");
        assert_eq!(asked(&simulator), only(vendor), "{model}");
    }
    assert_eq!(gateway.counters("priority").await.calls("rank"), 3);
    assert_eq!(gateway.counters("cheapest").await.calls("rank"), 1);
    assert_eq!(gateway.ask("single").await.content(), "You said: one two three");
    assert_eq!(asked(&simulator), only("b"));
    assert_eq!(gateway.counters("cheapest").await.calls("rank"), 1, "one candidate is not ranked");
}

/// The plan reads the request's shape alone: requests of one shape share it, others do not.
#[tokio::test]
async fn a_plan_is_made_once_for_a_shape_and_never_for_another_target() {
    let simulator = Simulator::start("127.0.0.1:0").await.unwrap();
    let models = "[[models]]\nname = \"any/*\"\ntargets = [{ upstream = \"a\", model = \"*\" }]\n";
    let gateway = Gateway::start(&config(&simulator, models), &Options::with(&KEYS));
    for (model, plans) in [("any/x", 1), ("any/x", 1), ("any/y", 2), ("any/x", 2)] {
        gateway.ask(model).await.content();
        assert_eq!(asked(&simulator)[0].2, model[4..]);
        assert_eq!(gateway.counters("openai").await.calls("plan"), plans, "{model}");
    }
}
