//! Auctions, answers and rewards: who wins, who is paid, and what a seed decides.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::market::{Client, finals, give, number, only_instance, opened};
use common::{exchange, request, soon};
use serde_json::{Value, json};
use sluice_simulate::{MarketBooks, ProposalStatus, Simulator, Status, Verdict};

/// Bids on all that is open, this part of the credit, until it is dropped.
async fn provide(p: Client, permille: u64) {
    let mut known = std::collections::HashSet::new();
    loop {
        let open = p.get("/v1/instances/?instance_status=0").await;
        if open.status == 200 {
            for instance in open.json().as_array().unwrap() {
                let id = instance["id"].as_str().unwrap();
                if known.insert(id.to_owned()) {
                    let credit = instance["max_credit_per_instance"].as_f64().unwrap();
                    let nanos = (credit * 1e9) as u64 / 1_000 * permille;
                    p.propose(id, &format!("{}e-9", nanos.max(10_000_000))).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await; // it scans now and then
    }
}

async fn while_providing<T>(p: &Client, permille: u64, until: impl Future<Output = T>) -> T {
    tokio::select! {
        () = provide(p.clone(), permille) => unreachable!("a provider never ends"),
        result = until => result,
    }
}

#[tokio::test]
async fn the_lowest_bid_wins_and_a_rival_is_no_exception() {
    let simulator = opened(json!({ "rivals": [
        { "kind": "flat", "price": 0.05 },
        { "kind": "aggressive", "undercut_permille": 200 },
        { "kind": "flat", "price": 0.9 },
    ] }))
    .await;
    let p = Client::with_key(&simulator, "key");
    for bid in ["0.040000001", "0.04"] {
        let id = give(&simulator, json!({ "credit": 0.1 })).await;
        assert_eq!(p.propose(&id, bid).await.status, 201);
    }
    let books = finals(&simulator, 2).await;
    let [lost, won] = &books.instances[..] else { panic!("{books:?}") };
    let bids: Vec<_> = lost.bids.iter().map(|bid| (bid.provider.as_str(), bid.amount.to_string())).collect();
    let expected = [("rival-0-flat", "0.05"), ("rival-1-aggressive", "0.04"), ("p", "0.040000001")];
    assert_eq!(bids, expected.map(|(provider, amount)| (provider, amount.to_owned())));
    assert_eq!(
        (lost.winner.as_deref(), lost.bids[2].status),
        (Some("rival-1-aggressive"), ProposalStatus::Lost)
    );
    // Of equal bids the earlier one: the rival's comes minutes later.
    assert_eq!((won.winner.as_deref(), won.paid.to_string()), (Some("p"), "0.04".to_owned()));
    assert_eq!((won.calls.len(), won.bids[2].status), (1, ProposalStatus::Awarded));
    let rival = books.provider("rival-1-aggressive").unwrap();
    assert!(rival.rival && rival.proposals.received == 2 && rival.balance.is_none());
}

#[tokio::test]
async fn a_rival_that_wins_is_paid_and_the_provider_is_not_called() {
    let simulator = opened(json!({ "rivals": [{ "kind": "flat", "price": 0.02 }] })).await;
    let p = Client::with_key(&simulator, "key");
    let id = give(&simulator, json!({ "credit": 0.1 })).await;
    assert_eq!(p.propose(&id, "0.03").await.status, 201);
    let row = only_instance(&simulator).await;
    assert_eq!((row.status, row.winner.as_deref()), (Status::Finalized, Some("rival-0-flat")));
    assert!(row.calls.is_empty() && simulator.books().rows.is_empty());
    assert_eq!(p.get("/v1/proposals/").await.json()[0]["status"], 2);
    assert_eq!(p.wallet().await, "10");
    let books = simulator.market_books("m").unwrap();
    assert_eq!(books.provider("rival-0-flat").unwrap().earned.to_string(), "0.02");
    assert_eq!(books.totals.paid.to_string(), "0", "what rivals get is not of this account");
}

/// Vendor `a` answers for the provider, with this script; `stream` is asked for or not.
async fn answered(vendor: Value, stream: bool) -> (Simulator, sluice_simulate::InstanceRow) {
    let simulator = opened(json!({})).await;
    simulator.direct("a", serde_json::from_value(vendor).unwrap());
    let p = Client::with_key(&simulator, "key");
    let id = give(&simulator, json!({ "credit": 1, "stream": stream, "max_tokens": 5 })).await;
    assert_eq!(p.propose(&id, "0.5").await.status, 201);
    let row = only_instance(&simulator).await;
    (simulator, row)
}

#[tokio::test]
async fn a_job_that_is_not_done_fails_and_pays_nothing() {
    let fault = |fault: Value| json!({ "faults": [fault] });
    let cases = [
        (json!({ "key": "another" }), false, "401"),
        (fault(json!({ "kind": "status", "status": 503 })), false, "503"),
        (fault(json!({ "kind": "reset", "at": "headers" })), false, ""),
        (fault(json!({ "kind": "empty" })), false, "no JSON"),
        (fault(json!({ "kind": "malformed_json" })), false, "no JSON"),
        (fault(json!({ "kind": "error_in_200" })), false, "no chat.completion"),
        (fault(json!({ "kind": "unstreamed" })), true, "not an event stream"),
        (fault(json!({ "kind": "cut", "events": 2 })), true, "[DONE]"),
        (fault(json!({ "kind": "malformed_sse", "events": 2 })), true, ""),
        (fault(json!({ "kind": "error_in_200", "events": 2 })), true, "no chunk"),
    ];
    for (vendor, stream, why) in cases {
        let (simulator, row) = answered(vendor.clone(), stream).await;
        assert_eq!((row.status, row.paid.to_string()), (Status::Failed, "0".to_owned()), "{vendor}");
        assert_eq!((row.calls.len(), row.calls[0].verdict), (1, Verdict::Failed), "{vendor}");
        assert!(row.why.as_deref().unwrap().contains(why), "{vendor}: {:?}", row.why);
        assert_eq!(Client::with_key(&simulator, "key").wallet().await, "10", "{vendor}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_fails_the_job() {
    let simulator = opened(json!({})).await;
    let p = Client::with_key(&simulator, "key");
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in [json!(format!("http://{nowhere}/")), json!("https://127.0.0.1/"), Value::Null] {
        let id = give(&simulator, json!({ "credit": 1 })).await;
        let body = json!({ "max_bid": 0.5, "endpoint": endpoint, "endpoint_api_key": "k" });
        assert_eq!(p.post(&format!("/v1/proposals/create/for-instance/{id}"), &body).await.status, 201);
    }
    let books = finals(&simulator, 3).await;
    let whys: Vec<_> = books.instances.iter().map(|row| row.why.clone().unwrap()).collect();
    assert!(
        whys[0].contains("connecting") && whys[1].contains("plain HTTP") && whys[2].contains("no endpoint"),
        "{whys:?}"
    );
    assert_eq!((books.totals.failed, p.wallet().await), (3, "10".to_owned()));
}

#[tokio::test]
async fn a_good_answer_is_paid_whole_and_streamed_and_one_that_says_nothing_is_not() {
    for stream in [false, true] {
        let (simulator, row) =
            answered(json!({ "reply": "one two three four five six", "key": "k" }), stream).await;
        assert_eq!((row.status, row.paid.to_string()), (Status::Finalized, "0.5".to_owned()), "{row:?}");
        let call = &row.calls[0];
        let seen = (call.verdict, call.streamed, call.prompt_tokens, call.completion_tokens);
        assert_eq!(seen, (Verdict::Good, stream, Some(10), Some(5)), "{row:?}");
        assert_eq!(Client::with_key(&simulator, "key").wallet().await, "10.5");
        let (simulator, row) = answered(json!({ "reply": "" }), stream).await;
        assert_eq!((row.status, row.calls[0].verdict), (Status::Finalized, Verdict::Bad), "{row:?}");
        assert_eq!(
            (row.gen_reward.unwrap().to_string(), row.paid.to_string()),
            ("0".to_owned(), "0".to_owned())
        );
        assert_eq!(Client::with_key(&simulator, "key").wallet().await, "10");
    }
}

#[tokio::test]
async fn requesters_pay_as_it_is_their_manner() {
    let simulator =
        opened(json!({ "requesters": { "late_ms": 1, "slow_ms": 0, "slow_pays_permille": 250 } })).await;
    simulator.direct(
        "a",
        serde_json::from_value(json!({ "faults": [{ "kind": "delay", "ms": 20, "times": 0 }] })).unwrap(),
    );
    let p = Client::with_key(&simulator, "key");
    let manners =
        [("in_full", true, "0.1"), ("late", true, "0.1"), ("never", true, "0.4"), ("in_full", false, "0.4")];
    for (manner, strict, _paid) in manners {
        let given = json!({ "credit": 1, "reward_timeout_ms": 600, "manner": manner,
                            "strict": strict, "percentage_reward": 0.2 });
        let id = give(&simulator, given).await;
        assert_eq!(p.propose(&id, "0.4").await.status, 201);
    }
    let books = finals(&simulator, 4).await;
    for (row, (manner, strict, paid)) in books.instances.iter().zip(manners) {
        let seen = (row.status, row.manner.as_str(), row.calls[0].verdict, row.paid.to_string());
        assert_eq!(seen, (Status::Finalized, manner, Verdict::Late, paid.to_owned()), "strict: {strict}");
    }
    assert_eq!(p.wallet().await, "11");
}

/// An account asks, another answers; what the one pays the other gets.
#[tokio::test]
async fn an_account_asks_and_rewards_another() {
    let simulator = opened(json!({})).await;
    let (asker, provider) = (Client::with_key(&simulator, "key"), Client::with_key(&simulator, "other"));
    let deposit = provider.post("/v1/payment/deposit", &json!({ "amount": 1 })).await.json();
    let target = deposit["url"].as_str().unwrap().strip_prefix("http://x").unwrap().to_owned();
    provider.ask_url("GET", &target, "").await;
    let body = json!({
        "background": "Say hello.", "max_credit_per_instance": 0.6, "instance_timeout": 600, "gen_reward_timeout": 600,
        "percentage_reward": 0.3, "messages": [{ "role": "user", "content": "hello there" }], "model": "m",
    });
    let created = asker.post("/v1/instances", &body).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((created.status, asker.wallet().await), (201, "9.4".to_owned()));
    assert_eq!(number(&asker.get("/v1/payment/balance").await, "held_balance"), "0.6");
    assert_eq!(provider.propose(&id, "0.05").await.status, 201);
    assert_eq!(asker.get(&format!("/v1/proposals/by-instance/{id}")).await.json()[0]["max_bid"], 0.05);
    assert_eq!(provider.get(&format!("/v1/proposals/by-instance/{id}")).await.status, 403);
    let completions = format!("/v1/chat/completions/{id}");
    let first = soon(async {
        loop {
            let seen = asker.get(&completions).await.json();
            if let Some(first) = seen.as_array().unwrap().last() {
                break first["response"]["choices"][0]["message"]["content"].clone();
            }
        }
    });
    assert_eq!(first.await, "You said: hello there");
    let more = json!({ "messages": [{ "role": "user", "content": "more" }], "model": "m" });
    let answer = asker.post(&completions, &more).await.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: more");
    let streamed = asker
        .post(&completions, &json!({ "messages": more["messages"], "model": "m", "stream": true }))
        .await;
    assert_eq!(streamed.events().last().unwrap(), "[DONE]");
    let winners = asker.get(&format!("/v1/instances/{id}/winning-providers")).await.json();
    let involved = asker.get(&format!("/v1/instances/involved-providers?instance_id={id}")).await.json();
    assert!(winners[0].is_string() && winners == involved, "{winners} {involved}");
    assert_eq!(asker.get("/v1/instances/for-current-user?instance_status=3").await.json()[0]["id"], id);

    let report = format!("/v1/instances/{id}/report-reward");
    assert_eq!(asker.ask("PUT", &report, r#"{"gen_reward": 3}"#).await.status, 400, "more than the credit");
    assert_eq!(provider.ask("PUT", &report, r#"{"gen_reward": 1}"#).await.status, 403);
    assert_eq!(asker.ask("PUT", &report, r#"{"gen_reward": 0.111111111}"#).await.status, 200);
    assert_eq!(asker.ask("PUT", &report, "{}").await.status, 400, "it is final");
    let row = only_instance(&simulator).await;
    assert_eq!((row.status, row.paid.to_string()), (Status::Finalized, "0.033333333".to_owned()));
    assert_eq!(
        (asker.wallet().await, provider.wallet().await),
        ("9.966666667".to_owned(), "1.033333333".to_owned())
    );
    assert_eq!(number(&asker.get("/v1/payment/balance").await, "held_balance"), "0");
}

/// Auctions are held after so many milliseconds, or after so many bids.
fn season(seed: u64, instances: usize, open_ms: u32, bids: u32) -> Value {
    json!({
        "seed": seed,
        "season": { "instances": instances, "arrivals_per_second": 300, "on_scan": true, "open_ms": open_ms,
                    "close_after_bids": bids, "reward_timeout_ms": 1_500, "rival_ms": 10 },
        "classes": [
            { "name": "short", "weight": 3, "prompt_words": [5, 40], "max_tokens": [5, 20], "credit": [0.05, 0.2],
              "stream_permille": 500, "calls": [1, 3] },
            { "name": "long", "prompt_words": [200, 400], "credit": [0.2, 1], "model": "large" },
        ],
        "requesters": { "in_full": 8, "late": 1, "never": 1, "percentage_reward": [1, 0.5, 0.2], "late_ms": 100 },
        "rivals": [
            { "kind": "flat", "price": 0.06, "absent_permille": 300 },
            { "kind": "cost_plus", "input_per_million": 100, "output_per_million": 500, "margin_permille": 300,
              "noise_permille": 200 },
            { "kind": "aggressive", "undercut_permille": 50, "floor": 0.02, "absent_permille": 500 },
        ],
    })
}

/// What the seed alone decides.
fn fate(books: &MarketBooks) -> Vec<String> {
    let row = |row: &sluice_simulate::InstanceRow| {
        let rivals = row.bids.iter().filter(|bid| bid.provider.starts_with("rival-"));
        let bids: Vec<_> = rivals.map(|bid| (&bid.provider, bid.amount, bid.after_ms)).collect();
        let job =
            (&row.id, &row.class, row.prompt_words, row.max_tokens, row.credit, row.stream, row.calls_wanted);
        format!("{job:?} {} {:?} {bids:?}", row.manner, row.percentage_reward)
    };
    books.instances.iter().map(row).collect()
}

#[tokio::test]
async fn a_seed_decides_jobs_and_rivals_whatever_the_provider_does() {
    let mut fates = Vec::new();
    for (seed, permille) in [(7, 0), (7, 1), (7, 990), (8, 0)] {
        let simulator = opened(season(seed, 40, 300, 9)).await;
        let p = Client::with_key(&simulator, "key");
        let books = match permille {
            0 => {
                assert_eq!(p.get("/v1/instances/").await.status, 200); // it begins
                finals(&simulator, 40).await
            }
            _ => while_providing(&p, permille, finals(&simulator, 40)).await,
        };
        assert_eq!(books.provider("p").unwrap().won > 0, permille == 1, "{permille}");
        fates.push(fate(&books));
    }
    assert_eq!(fates[0].len(), 40);
    assert!(fates[0] == fates[1] && fates[0] == fates[2] && fates[0] != fates[3]);
}

/// A whole season in seconds, and the sums agree.
#[tokio::test]
async fn a_season_of_three_hundred_jobs_is_played() {
    let simulator = opened(season(11, 300, 600_000, 1)).await;
    let p = Client::with_key(&simulator, "key");
    let books = while_providing(&p, 150, finals(&simulator, 300)).await;
    let provider = books.provider("p").unwrap();
    assert_eq!((books.totals.instances, books.totals.final_), (300, 300));
    assert!((50..250).contains(&provider.won) && provider.proposals.received == 300, "{provider:?}");
    let won = books.instances.iter().filter(|row| row.winner.as_deref() == Some("p"));
    let mut earned = 0;
    for row in won {
        let bid = row.bids.iter().find(|bid| bid.provider == "p").unwrap();
        assert_eq!((row.status, row.paid), (Status::Finalized, bid.amount), "{row:?}");
        assert_eq!(row.calls.len() as u32, row.calls_wanted);
        assert!(
            row.calls.iter().all(|call| call.verdict == Verdict::Good && call.streamed == row.stream),
            "{row:?}"
        );
        earned += row.paid.nanos();
    }
    assert_eq!(provider.earned.nanos(), earned);
    assert_eq!(provider.balance.unwrap().nanos(), 10_000_000_000 + earned);
    let calls: usize = books.instances.iter().map(|row| row.calls.len()).sum();
    assert_eq!(simulator.books().rows.len(), calls, "each call is one request of the endpoint");
}

#[tokio::test]
async fn the_control_api_opens_replaces_shows_and_ends_a_market() {
    let simulator = opened(json!({})).await;
    let control =
        |method: &str, path: &str, body: &str| request(method, &format!("/_simulate/markets/{path}"), body);
    let wrong = [
        ("PUT", "n", r#"{"seeed": 1}"#, 400, "seeed"),
        ("PUT", "n", r#"{"season": {"instances": 1}}"#, 400, "classes"),
        ("PUT", "a%20b", "{}", 400, "name"),
        ("POST", "m/instances", r#"{"credit": 1, "bid": 1}"#, 400, "bid"),
        ("POST", "m/instances", r#"{"credit": 1, "calls": 4}"#, 400, "calls"),
        ("POST", "m/instances", r#"{"credit": 1, "percentage_reward": 0.3}"#, 400, "percentage_reward"),
        ("POST", "n/instances", r#"{"credit": 1}"#, 404, "no market"),
        ("GET", "n/books", "", 404, "no market"),
        ("GET", "m/books?finished=1", "", 400, "final"),
        ("GET", "m/books?final=x", "", 400, "number"),
        ("POST", "m/books", "", 404, "POST"),
    ];
    for (method, path, body, status, named) in wrong {
        let answer = exchange(simulator.address(), &control(method, path, body)).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        let message = answer.json()["error"].to_string();
        assert!(message.contains(named), "{message}");
    }
    give(&simulator, json!({ "credit": 1, "open_ms": 10 })).await;
    let books = exchange(simulator.address(), &control("GET", "m/books?final=1", "")).await.json();
    assert_eq!(
        (&books["totals"]["final"], &books["instances"][0]["why"]),
        (&json!(1), &json!("no proposals"))
    );
    assert_eq!(books["providers"][0]["balance"], 10);
    for (method, instances) in [("PUT", Some(0)), ("DELETE", None)] {
        let answer = exchange(simulator.address(), &control(method, "m", "{}")).await;
        assert_eq!(answer.status, 204);
        let left = simulator.market_books("m").map(|books| books.instances.len());
        assert_eq!(left, instances, "{method}");
    }
    assert_eq!(simulator.books().connections.accepted, 0, "a market's requests are no vendor's");
}
