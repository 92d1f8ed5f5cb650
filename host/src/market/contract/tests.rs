//! What the market may say, and what is made of it.

use serde_json::{Value, json};

use super::*;
use crate::market::wire::{list, printable};

fn good() -> Value {
    json!({
        "id": "0b6f4c1e-9d3a-4c55-8a77-2f1f0e5d6c7b",
        "background": "Summarise this",
        "max_credit_per_instance": 0.25,
        "status": 0,
        "creation_date": "2026-01-02T03:04:05",
        "instance_timeout_datetime": "2026-01-02T03:04:05.250000",
        "gen_reward_timeout_datetime": "2026-01-02T05:04:05+02:00",
        "payload": {"messages": [{"role": "user", "content": "hi"}], "model": "m", "max_tokens": 7, "stream": false},
        "gen_reward": null,
        "percentage_reward": 0.5,
        "representative_agent": false,
        "unknown": {"deep": [1, 2]},
    })
}

fn read(value: &Value) -> Option<Instance> {
    Instance::read(&RawValue::from_string(value.to_string()).unwrap())
}

fn read_text(text: &str) -> Option<Instance> {
    Instance::read(&RawValue::from_string(text.to_owned()).unwrap())
}

fn with(key: &str, value: Value) -> Value {
    let mut instance = good();
    instance[key] = value;
    instance
}

fn without(key: &str) -> Value {
    let mut instance = good();
    instance.as_object_mut().unwrap().remove(key);
    instance
}

#[test]
fn an_instance_is_read_as_it_is() {
    let instance = read(&good()).unwrap();
    assert_eq!(instance.id.as_str(), "0b6f4c1e-9d3a-4c55-8a77-2f1f0e5d6c7b");
    assert_eq!(instance.background, "Summarise this");
    assert_eq!(instance.credit.to_string(), "0.25");
    assert_eq!(instance.status, InstanceStatus::Open);
    // 2026-01-02T03:04:05Z, once without an offset, once with one.
    assert_eq!(instance.closes_at_ms, Some(1_767_323_045_250));
    assert_eq!(instance.reward_due_at_ms, Some(1_767_323_045_000));
    assert_eq!(instance.messages.unwrap().get(), r#"[{"content":"hi","role":"user"}]"#);
    assert_eq!(instance.max_tokens, Some(7));
    assert_eq!((instance.stream, instance.is_agent), (Some(false), false));
    assert_eq!((instance.gen_reward, instance.percentage_reward), (None, Some(Share(500_000_000))));
}

#[test]
fn what_may_be_missing_may_be_missing() {
    let least = json!({"id": "a", "max_credit_per_instance": "0.1", "status": 42});
    let instance = read(&least).unwrap();
    assert_eq!((instance.credit.nanos(), instance.status), (100_000_000, InstanceStatus::Other(42)));
    assert!(instance.messages.is_none() && instance.closes_at_ms.is_none() && instance.background.is_empty());
    let mut top = without("payload");
    top["messages"] = json!([]);
    top["max_completion_tokens"] = json!(9);
    top["representative_agent"] = json!(true);
    top["gen_reward"] = json!(0.125);
    let instance = read(&top).unwrap();
    assert_eq!((instance.messages.unwrap().get(), instance.max_tokens), ("[]", Some(9)));
    assert_eq!((instance.is_agent, instance.gen_reward.unwrap().nanos()), (true, 125_000_000));
    for key in
        ["background", "payload", "instance_timeout_datetime", "percentage_reward", "representative_agent"]
    {
        assert!(read(&with(key, Value::Null)).is_some(), "{key}");
        assert!(read(&without(key)).is_some(), "{key}");
    }
}

#[test]
fn amounts_are_exact() {
    let table = [
        ("0.1", 100_000_000),
        ("1e-2", 10_000_000),
        ("0.30000000000000004", 300_000_000),
        ("123456789.123456789", 123_456_789_123_456_789),
        ("\"0.07\"", 70_000_000),
    ];
    for (text, nanos) in table {
        let instance = format!(r#"{{"id":"a","status":0,"max_credit_per_instance":{text}}}"#);
        assert_eq!(read_text(&instance).map(|found| found.credit.nanos()), Some(nanos), "{text}");
    }
    for text in ["null", "-0.01", "\"much\"", "true", "[1]", "{}", "1e20", "\"\""] {
        let instance = format!(r#"{{"id":"a","status":0,"max_credit_per_instance":{text}}}"#);
        assert!(read_text(&instance).is_none(), "{text}");
    }
}

#[test]
fn what_is_not_by_the_contract_is_refused() {
    let bad = [
        without("id"),
        without("max_credit_per_instance"),
        without("status"),
        with("id", json!(7)),
        with("id", json!("")),
        with("id", json!("../balance")),
        with("id", json!("a b")),
        with("id", json!("é")),
        with("id", json!("x".repeat(65))),
        with("status", json!("open")),
        with("instance_timeout_datetime", json!("tomorrow")),
        with("instance_timeout_datetime", json!("1960-01-01T00:00:00")),
        with("instance_timeout_datetime", json!(5)),
        with("payload", json!({"messages": "hi"})),
        with("payload", json!({"max_tokens": -1})),
        with("percentage_reward", json!(1.5)),
        with("gen_reward", json!(-1)),
        json!([]),
        json!(null),
        json!("a"),
    ];
    for instance in bad {
        assert!(read(&instance).is_none(), "{instance}");
    }
    assert!(read(&with("id", json!("x".repeat(64)))).is_some(), "the control");
}

#[test]
fn one_bad_item_spoils_nothing() {
    let body = json!([good(), {"id": "/"}, 7, with("id", json!("b"))]);
    for body in [body.clone(), json!({"results": body, "count": 4})] {
        let listed = list(body.to_string().as_bytes(), 10, Instance::read).unwrap();
        assert_eq!((listed.items.len(), listed.bad, listed.beyond), (2, 2, 0));
        assert_eq!(listed.items[1].id.as_str(), "b");
    }
    for body in ["", "{}", "7", "\"[]\"", "[1", "[] []", "{\"results\": 7}", "<html>"] {
        assert!(list(body.as_bytes(), 10, Instance::read).is_none(), "{body}");
    }
    assert_eq!(list(b" [] ", 10, Instance::read).map(|listed| listed.items.len()), Some(0));
}

#[test]
fn a_list_has_a_bound() {
    let body = format!("[{}1]", "1,".repeat(3_000_000));
    let listed = list(body.as_bytes(), 1000, |raw| Some(raw.get().len())).unwrap();
    assert_eq!((listed.items.len(), listed.bad, listed.beyond), (1000, 0, 2_999_001));
    // Bad ones count too: nobody keeps us reading.
    let listed = list(body.as_bytes(), 1000, Instance::read).unwrap();
    assert_eq!((listed.items.len(), listed.bad, listed.beyond), (0, 1000, 2_999_001));
    let deep = format!("[{}{}]", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(list(deep.as_bytes(), 1000, Instance::read).is_none_or(|listed| listed.items.is_empty()));
}

#[test]
fn a_share_is_rounded_down() {
    let share = |text: &str| Share::of(&RawValue::from_string(text.into()).unwrap());
    let half = share("0.5").unwrap();
    assert_eq!(half.part_of(NanoUsd::from_nanos(3)).nanos(), 1);
    let (none, all) = (share("0").unwrap(), share("1.0").unwrap());
    let most = NanoUsd::from_nanos(u64::MAX);
    assert_eq!((none.part_of(most).nanos(), all.part_of(most)), (0, most));
    assert_eq!((share("1.000000001"), share("-0.1")), (None, None));
}

#[test]
fn proposals_balances_and_messages_are_read() {
    let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
    let proposal = |status: i64| {
        let body = json!({"instance_id": "a-1", "status": status, "creation_date": "2026-01-02T03:04:05Z"});
        Proposal::read(&raw(body)).unwrap()
    };
    assert_eq!(proposal(0).status, ProposalStatus::Pending);
    assert_eq!(proposal(1).status, ProposalStatus::Awarded);
    assert_eq!(proposal(9).status, ProposalStatus::Other(9));
    assert_eq!(proposal(0).created_at_ms, Some(1_767_323_045_000));
    let balance = json!({"wallet_balance": 12.5, "held_balance": 0.1, "currency": "usd\u{1b}[31m"});
    let balance = Balance::read(&raw(balance)).unwrap();
    assert_eq!((balance.wallet.to_string(), balance.held.to_string()), ("12.50".into(), "0.10".into()));
    assert_eq!(balance.currency, "usd [31m");
    let debt = Balance::read(&raw(json!({"wallet_balance": -0.5}))).unwrap();
    assert_eq!((debt.wallet, debt.held), (NanoUsd::ZERO, NanoUsd::ZERO));
    assert_eq!(Balance::read(&raw(json!({"wallet_balance": null}))), None);
    let message = |sender: &str| json!({"sender": sender, "message": "hello", "timestamp": "2026-01-02"});
    for (name, sender) in
        [("provider", Sender::Provider), ("requester", Sender::Requester), ("judge", Sender::Other)]
    {
        assert_eq!(ChatMessage::read(&raw(message(name))).map(|found| found.sender), Some(sender));
    }
}

#[test]
fn what_is_shown_is_one_plain_line() {
    assert_eq!(printable(" a\nb\u{1b}[2J\u{202e}c\u{0} ", 100), "a b [2J c ");
    assert_eq!(printable("äöü", 2), "äö…");
}
