//! The market's contract, by plain HTTP: accounts and money, proposals, refusals, faults.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::market::{Client, detail, finals, give, number, only_instance, opened};
use common::{exchange, request, scripted, soon};
use serde_json::{Value, json};
use sluice_simulate::{JobKind, Status, Verdict};

/// From nothing to a rewarded job, with every amount to the last billionth.
#[tokio::test]
async fn a_provider_registers_pays_in_bids_is_called_and_is_paid() {
    let simulator = scripted(json!({ "key": "k" })).await;
    let script = json!({
        "rivals": [{ "kind": "flat", "price": 0.03 }],
        "requesters": { "percentage_reward": [0.5], "slow_ms": 600_000, "call_timeout_ms": 600_000 },
    });
    simulator.open_market("m", serde_json::from_value(script).unwrap()).unwrap();
    let nobody = Client { address: simulator.address(), credentials: "x-nothing: 1".to_owned() };
    let wanted = json!({ "email": "p@example.com", "username": "p", "fullname": "P", "password": "a b" });
    assert_eq!(nobody.post("/v1/auth/register", &wanted).await.status, 201);
    let login = nobody.ask("POST", "/v1/auth/login", "username=p%40example.com&password=a+b").await;
    assert_eq!((login.status, &login.json()["token_type"]), (200, &json!("bearer")));
    let person = Client::with_token(&simulator, login.json()["access_token"].as_str().unwrap());
    assert_eq!(person.get("/v1/auth/users/me/").await.json()["username"], "p");
    let created = person.ask("POST", "/v1/auth/create-api-key?name=bot%201&is_live=true", "").await;
    assert_eq!((created.status, &created.json()["name"]), (201, &json!("bot 1")));
    assert_eq!(
        person.get("/v1/auth/list-api-keys").await.json(),
        json!([{ "name": "bot 1", "is_live": true }])
    );
    let provider = Client::with_key(&simulator, created.json()["api_key"].as_str().unwrap());

    let deposit = provider.post("/v1/payment/deposit", &json!({ "amount": 10, "description": "d" })).await;
    let url = deposit.json()["url"].as_str().unwrap().to_owned();
    let target = url.strip_prefix("http://x").unwrap();
    assert_eq!(provider.wallet().await, "0", "nothing is paid yet");
    for _ in 0..2 {
        assert_eq!(nobody.ask_url("GET", target, "").await.status, 200);
    }
    assert_eq!((provider.wallet().await, person.wallet().await), ("10".to_owned(), "10".to_owned()));

    let id = give(
        &simulator,
        json!({ "credit": 0.1, "prompt_words": 7, "open_ms": 600_000, "close_after_bids": 1, "calls": 2 }),
    )
    .await;
    let open = provider.get("/v1/instances/?instance_status=0").await.json();
    assert_eq!(
        (&open[0]["id"], &open[0]["status"], &open[0]["gen_reward"]),
        (&json!(id), &json!(0), &Value::Null)
    );
    assert_eq!(open[0]["payload"]["messages"][0]["role"], "user");
    let date = open[0]["creation_date"].as_str().unwrap();
    assert!(date.len() == 26 && date.as_bytes()[10] == b'T' && !date.ends_with('Z'), "{date}");
    assert_eq!(provider.get("/v1/proposals").await.json(), json!([]));
    assert_eq!(provider.propose(&id, "0.029999999").await.status, 201);

    let row = only_instance(&simulator).await;
    assert_eq!((row.status, row.winner.as_deref()), (Status::Finalized, Some("p")));
    let calls: Vec<_> =
        row.calls.iter().map(|call| (call.status, call.verdict, call.prompt_tokens)).collect();
    // The second call asks once more, with six words.
    assert_eq!(calls, [(Some(200), Verdict::Good, Some(7)), (Some(200), Verdict::Good, Some(13))]);
    let done = provider.get(&format!("/v1/instances/{id}")).await;
    assert_eq!(done.json()["status"], 7);
    assert_eq!(number(&done, "gen_reward"), "0.059999998");
    assert_eq!(number(&done, "percentage_reward"), "0.5");
    assert_eq!(provider.wallet().await, "10.029999999");
    let mine = provider.get("/v1/proposals/").await.json();
    assert_eq!((&mine[0]["instance_id"], &mine[0]["status"]), (&json!(id), &json!(1)));
    let books = finals(&simulator, 1).await;
    let (totals, provider) = (&books.totals, books.provider("p").unwrap());
    assert_eq!((totals.bids, totals.calls, totals.paid.to_string()), (2, 2, "0.029999999".to_owned()));
    assert_eq!((provider.won, provider.proposals.by_status[&201]), (1, 1));
    assert_eq!(provider.requests["GET /v1/proposals"], 2);
}

#[tokio::test]
async fn what_is_not_right_is_refused_with_its_status() {
    let simulator = opened(json!({})).await;
    let (p, q) = (Client::with_key(&simulator, "key"), Client::with_key(&simulator, "other"));
    let wrong = Client::with_key(&simulator, "wrong");
    let nobody = Client { credentials: "x-nothing: 1".to_owned(), ..p.clone() };
    let open = give(&simulator, json!({ "credit": 0.5, "close_after_bids": 9 })).await;
    let closed = give(&simulator, json!({ "credit": 0.5, "open_ms": 0 })).await;
    finals(&simulator, 1).await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let at = |id: &str| format!("/v1/proposals/create/for-instance/{id}");
    let long = format!(r#"{{"max_bid": 0.1, "endpoint_api_key": "{}"}}"#, "k".repeat(2_001));
    let cases = [
        (&nobody, at(&open), r#"{"max_bid": 0.1}"#, 401, "Not authenticated"),
        (&wrong, at(&open), r#"{"max_bid": 0.1}"#, 401, "credentials"),
        (&wrong, at(&open), "{", 422, "json_invalid"),
        (&wrong, at(&open), "{}", 401, "credentials"),
        (&q, at(&open), r#"{"max_bid": 0.1}"#, 402, "balance"),
        (&p, at(unknown), r#"{"max_bid": 0.1}"#, 404, "not found"),
        (&p, at("12"), r#"{"max_bid": 0.1}"#, 422, "uuid_parsing"),
        (&p, at(&closed), r#"{"max_bid": 0.1}"#, 400, "not open"),
        (&p, at(&open), r#"{"max_bid": 0.500000001}"#, 400, "max_credit_per_instance"),
        (&p, at(&open), r#"{"max_bid": 0.009999999}"#, 400, "minimum of 0.01"),
        (&p, at(&open), "{}", 422, "missing"),
        (&p, at(&open), r#"{"max_bid": "0.1"}"#, 422, "float_type"),
        (&p, at(&open), r#"{"max_bid": -1}"#, 422, "greater_than_equal"),
        (&p, at(&open), r#"{"max_bid": 0.1000000001}"#, 422, "decimal_max_places"),
        (&p, at(&open), r#"{"max_bid": 0.1, "endpoint": "nowhere"}"#, 422, "url_parsing"),
        (&p, at(&open), r#"{"max_bid": 0.1, "endpoint_api_key": 1}"#, 422, "string_type"),
        (&p, at(&open), long.as_str(), 422, "string_too_long"),
        (&p, at(&open), r#"{"max_bid": 0.1}"#, 201, ""),
        (&p, at(&open), r#"{"max_bid": 0.1}"#, 409, "already exists"),
        (&p, "/v1/auth/register".into(), r#"{"email": "a", "username": "a"}"#, 422, "password"),
        (&p, "/v1/auth/login".into(), "username=p&password=wrong", 401, "Incorrect"),
        (&p, "/v1/auth/login".into(), "username=p", 422, "password"),
        (&p, "/v1/auth/create-api-key?name=a".into(), "", 401, "credentials"),
        (&p, "/v1/payment/deposit".into(), r#"{"amount": 0}"#, 422, "greater_than"),
        (&p, "/v1/payment/withdraw".into(), r#"{"amount": 1}"#, 401, "credentials"),
        (&q, "/v1/instances".into(), r#"{"background": "b", "max_credit_per_instance": 1}"#, 402, "balance"),
        (&p, "/v1/instances".into(), r#"{"max_credit_per_instance": 1}"#, 422, "background"),
        (&p, format!("/v1/chat/send-message/{open}"), r#"{"message": "hi"}"#, 403, "participant"),
        (&p, format!("/v1/chat/completions/{open}"), r#"{"messages": [], "model": "m"}"#, 403, "requester"),
        (&p, "/v1/nothing".into(), "{}", 404, "Not Found"),
        (&p, "/v1/proposals".into(), "{}", 405, "Not Allowed"),
    ];
    for (client, path, body, status, named) in cases {
        let answer = client.ask("POST", &path, body).await;
        assert_eq!(answer.status, status, "{path} {body} {}", String::from_utf8_lossy(&answer.body()));
        assert!(detail(&answer).contains(named), "{path} {body}: {}", detail(&answer));
    }
    assert_eq!(p.get("/v1/instances/?instance_status=x").await.status, 422);
    assert_eq!(wrong.get("/v1/instances/").await.status, 401);
    let books = simulator.market_books("m").unwrap();
    let totals = &books.provider("p").unwrap().proposals;
    let by_status: Vec<_> = totals.by_status.iter().map(|(status, count)| (*status, *count)).collect();
    assert_eq!(by_status, [(201, 1), (400, 3), (404, 1), (409, 1), (422, 8)]);
    assert_eq!((totals.received, totals.duplicates), (14, 1));
    assert_eq!(books.provider("q").unwrap().proposals.by_status[&402], 1);
    assert_eq!(books.instances[0].bids.len(), 1, "what is refused is no bid");
}

#[tokio::test]
async fn keys_and_logins_are_good_as_long_as_they_are() {
    let simulator = opened(json!({ "token_life_ms": 3_600_000 })).await;
    let nobody = Client::with_key(&simulator, "");
    let login = nobody.ask("POST", "/v1/auth/login", "username=p&password=secret").await.json();
    let person = Client::with_token(&simulator, login["access_token"].as_str().unwrap());
    let created = person.ask("POST", "/v1/auth/create-api-key?name=a&is_live=false", "").await.json();
    let machine = Client::with_key(&simulator, created["api_key"].as_str().unwrap());
    let mut seen = vec![machine.get("/v1/proposals/").await.status];
    for (method, path) in [
        ("PUT", "enable-api-key"),
        ("PUT", "disable-api-key"),
        ("PUT", "enable-api-key"),
        ("DELETE", "delete-api-key"),
    ] {
        assert_eq!(person.ask(method, &format!("/v1/auth/{path}?name=a"), "").await.status, 200, "{path}");
        seen.push(machine.get("/v1/proposals/").await.status);
    }
    assert_eq!(seen, [401, 200, 401, 200, 401]);
    assert_eq!(person.ask("DELETE", "/v1/auth/delete-api-key?name=a", "").await.status, 404);
    let withdraw = json!({ "amount": 4.000000001 });
    let refused = person.post("/v1/payment/withdraw", &withdraw).await;
    assert!(refused.status == 400 && detail(&refused).contains("Stripe account"), "{}", detail(&refused));
    assert_eq!(
        person.post("/v1/payment/create-payment-account", &json!({ "country": "FI" })).await.status,
        200
    );
    assert_eq!(person.post("/v1/payment/withdraw", &withdraw).await.status, 200);
    assert_eq!(person.wallet().await, "5.999999999");

    let brief = opened(json!({ "token_life_ms": 0 })).await;
    let login =
        Client::with_key(&brief, "").ask("POST", "/v1/auth/login", "username=p&password=secret").await;
    let late = Client::with_token(&brief, login.json()["access_token"].as_str().unwrap());
    assert_eq!(late.get("/v1/auth/users/me/").await.status, 401, "its life is over");
}

#[tokio::test]
async fn a_second_proposal_is_taken_where_the_script_says_so() {
    let simulator = opened(json!({ "duplicates": "accept" })).await;
    let p = Client::with_key(&simulator, "key");
    let id = give(&simulator, json!({ "credit": 0.5, "close_after_bids": 2 })).await;
    for bid in ["0.2", "0.1"] {
        assert_eq!(p.propose(&id, bid).await.status, 201);
    }
    let row = only_instance(&simulator).await;
    assert_eq!((row.bids.len(), row.paid.to_string()), (2, "0.1".to_owned()));
    let books = simulator.market_books("m").unwrap();
    assert_eq!(books.provider("p").unwrap().proposals.duplicates, 1);
}

#[tokio::test]
async fn a_share_of_the_proposals_is_refused_whenever_they_come() {
    let script = json!({ "seed": 3, "refuse": { "permille": 500, "status": 429, "detail": "slow down" } });
    let mut courses = Vec::new();
    for backwards in [false, true] {
        let simulator = opened(script.clone()).await;
        let p = Client::with_key(&simulator, "key");
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(give(&simulator, json!({ "credit": 1, "close_after_bids": 9 })).await);
        }
        let mut statuses = vec![0; ids.len()];
        let order: Vec<_> = if backwards { (0..ids.len()).rev().collect() } else { (0..ids.len()).collect() };
        for index in order {
            statuses[index] = p.propose(&ids[index], "0.1").await.status;
        }
        courses.push(statuses);
    }
    assert_eq!(courses[0], courses[1]);
    let refused = courses[0].iter().filter(|status| **status == 429).count();
    assert!((5..=15).contains(&refused), "{:?}", courses[0]);
}

#[tokio::test]
async fn faults_meet_the_calls_they_are_on() {
    let simulator = opened(json!({ "faults": [
        { "on": "instances", "kind": "status", "status": 503, "times": 2 },
        { "on": "proposals", "kind": "garbage" },
        { "on": "balance", "kind": "delay", "ms": 1 },
        { "on": "create", "kind": "status", "status": 500, "processed": true },
        { "on": "create", "kind": "garbage" },
    ] }))
    .await;
    let p = Client::with_key(&simulator, "key");
    let id = give(&simulator, json!({ "credit": 1, "close_after_bids": 9 })).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(p.get("/v1/instances/").await.status);
    }
    assert_eq!(statuses, [503, 503, 200]);
    let garbage = p.get("/v1/proposals/").await;
    assert!(garbage.status == 200 && serde_json::from_slice::<Value>(&garbage.body()).is_err());
    assert_eq!(p.wallet().await, "10", "after the delay");
    assert_eq!(p.propose(&id, "0.1").await.status, 500);
    assert_eq!(
        p.get("/v1/proposals/").await.json().as_array().unwrap().len(),
        1,
        "it was created all the same"
    );
    let garbage = p.propose(&id, "0.1").await;
    assert!(garbage.status == 200 && serde_json::from_slice::<Value>(&garbage.body()).is_err());
    assert_eq!(p.propose(&id, "0.1").await.status, 409);
    let proposals = &simulator.market_books("m").unwrap().provider("p").unwrap().proposals.clone();
    assert_eq!(proposals.by_status.keys().copied().collect::<Vec<_>>(), [200, 201, 409]);
}

/// Who hangs is let go when the market ends, and nothing else waits for him.
#[tokio::test]
async fn a_call_that_hangs_ends_with_the_market() {
    let simulator = opened(json!({ "faults": [{ "on": "any", "kind": "hang" }] })).await;
    let p = Client::with_key(&simulator, "key");
    let hanging = tokio::spawn({
        let p = p.clone();
        async move { p.get("/v1/payment/balance").await.status }
    });
    let counted =
        || simulator.market_books("m").unwrap().totals.requests.get("GET /v1/payment/balance").copied();
    soon(async {
        while counted() != Some(1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(p.wallet().await, "10", "the fault was taken by the other");
    assert!(!hanging.is_finished());
    let gone = exchange(simulator.address(), &request("DELETE", "/_simulate/markets/m", "")).await;
    assert_eq!((gone.status, soon(hanging).await.unwrap()), (204, 503));
    assert_eq!(p.get("/v1/payment/balance").await.status, 404);
}

#[tokio::test]
async fn an_agent_delivers_in_the_thread() {
    let simulator = opened(json!({})).await;
    let (p, q) = (Client::with_key(&simulator, "key"), Client::with_key(&simulator, "other"));
    let given = json!({ "credit": 1, "kind": "agent", "background": "Mend this." });
    let id = give(&simulator, given).await;
    let shown = p.get(&format!("/v1/instances/{id}")).await.json();
    assert_eq!((&shown["representative_agent"], &shown["background"]), (&json!(true), &json!("Mend this.")));
    assert_eq!(p.get(&format!("/v1/chat/{id}")).await.status, 403, "not a participant yet");
    let body = json!({ "max_bid": 0.25 });
    assert_eq!(p.post(&format!("/v1/proposals/create/for-instance/{id}"), &body).await.status, 201);
    let say = json!({ "message": "Done." });
    let path = format!("/v1/chat/send-message/{id}");
    soon(async { while p.get(&format!("/v1/instances/{id}")).await.json()["status"] != 3 {} }).await;
    assert_eq!(p.post(&path, &json!({ "message": " " })).await.status, 200, "it says nothing");
    assert_eq!(q.post(&path, &say).await.status, 403);
    assert_eq!(p.post(&path, &say).await.json(), json!({ "status": "ok" }));
    let row = only_instance(&simulator).await;
    assert_eq!(
        (row.kind, row.status, row.paid.to_string()),
        (JobKind::Agent, Status::Finalized, "0.25".to_owned())
    );
    let thread = p.get(&format!("/v1/chat/{id}?provider_id=x")).await.json();
    assert_eq!((&thread[1]["sender"], &thread[1]["message"]), (&json!("provider"), &json!("Done.")));
    assert_eq!(p.post(&path, &say).await.status, 400, "the chat is over");
}
