//! What the vendor refuses, and what it reads out of the rest.

use serde_json::{Value, json};

use crate::ask::{Ask, Calling, Delivery, object};
use crate::refusal::Refusal;

fn check(request: &Value) -> Result<Ask, Refusal> {
    super::check(&object(request.to_string().as_bytes())?)
}

/// A good request with one member set.
fn with(name: &str, value: Value) -> Value {
    let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "a b"}]});
    request[name] = value;
    request
}

#[test]
fn a_wrong_member_is_refused_by_name() {
    let wrong = [
        ("model", json!(null)),
        ("model", json!(7)),
        ("model", json!("")),
        ("messages", json!(null)),
        ("messages", json!([])),
        ("messages", json!({})),
        ("messages", json!(["hello"])),
        ("messages", json!([{"content": "no role"}])),
        ("messages", json!([{"role": "pope", "content": "x"}])),
        ("messages", json!([{"role": "user", "content": 7}])),
        ("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}])),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ),
        ("n", json!(0)),
        ("n", json!(129)),
        ("n", json!("2")),
        ("max_tokens", json!(-1)),
        ("max_completion_tokens", json!(1.5)),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("tools", json!({})),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({"type": "function"})),
        ("tool_choice", json!({"type": "function", "function": {"name": "absent"}})),
    ];
    for (name, value) in wrong {
        let request = with(name, value);
        let refusal = check(&request).unwrap_err();
        assert_eq!(refusal.status, 400, "{request}");
        assert_eq!(refusal.param.unwrap(), name, "{request}");
    }
}

#[test]
fn both_limits_at_once_are_refused() {
    let mut request = with("max_tokens", json!(1));
    request["max_completion_tokens"] = json!(1);
    assert!(check(&request).is_err());
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    for body in ["", "{", "[]", "\"text\"", "null"] {
        assert_eq!(object(body.as_bytes()).unwrap_err().status, 400, "{body}");
    }
}

#[test]
fn null_is_absent() {
    for name in ["n", "max_tokens", "stream", "stream_options", "tools", "tool_choice"] {
        let request = check(&with(name, Value::Null)).unwrap();
        assert_eq!(request.delivery, Delivery::Whole);
        assert_eq!((request.choices, request.completion_tokens_max), (1, None));
    }
}

#[test]
fn the_prompt_is_counted_over_all_messages_and_the_last_user_is_heard() {
    let messages = json!([
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": null},
        {"role": "user", "content": [{"type": "text", "text": "a b "}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, {"type": "text", "text": "c"}]},
        {"role": "assistant", "content": "d"},
    ]);
    let request = check(&with("messages", messages)).unwrap();
    assert_eq!(request.prompt_tokens, 7 + 85);
    assert_eq!(request.last_user_text, "a b c");
}

#[test]
fn a_forced_function_is_found_by_name_or_is_the_first() {
    let tools = json!([
        {"type": "function", "function": {"name": "a"}},
        {"type": "function", "function": {"name": "b", "parameters": {"type": "object"}}},
    ]);
    let named = json!({"type": "function", "function": {"name": "b"}});
    let cases = [
        (json!("required"), "ab", Calling::Must),
        (named, "b", Calling::Must),
        (json!("auto"), "ab", Calling::May),
        (json!("none"), "", Calling::No),
    ];
    for (choice, callable, calling) in cases {
        let mut request = with("tools", tools.clone());
        request["tool_choice"] = choice;
        let ask = check(&request).unwrap();
        let names: String = ask.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!((names.as_str(), ask.calling), (callable, calling));
    }
}

#[test]
fn an_answered_call_need_not_be_followed_by_another() {
    let mut request = with("tools", json!([{"type": "function", "function": {"name": "a"}}]));
    assert_eq!(check(&request).unwrap().calling, Calling::May);
    request["messages"] = json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]);
    assert_eq!(check(&request).unwrap().calling, Calling::No);
    request["tool_choice"] = json!("required");
    assert_eq!(check(&request).unwrap().calling, Calling::Must);
}
