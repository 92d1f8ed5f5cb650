//! What the vendor refuses, and what it reads out of the rest.

use serde_json::{Value, json};

use crate::anthropic::signature;
use crate::ask::{Ask, Calling, Delivery, Thinking, object};
use crate::refusal::Refusal;

fn check(request: &Value) -> Result<Ask, Refusal> {
    super::check(&object(request.to_string().as_bytes())?)
}

/// A good request with one member set.
fn with(name: &str, value: Value) -> Value {
    let user = json!({"role": "user", "content": "a b"});
    let mut request = json!({"model": "m", "max_tokens": 2000, "messages": [user]});
    request[name] = value;
    request
}

/// The messages of a question, what an assistant said to it, and what comes after.
fn talk(assistant: Value, user: Value) -> Value {
    json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": assistant},
        {"role": "user", "content": user},
    ])
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "t", "input": {}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "three small words"})
}

fn thought(text: &str, signature: &str) -> Value {
    json!({"type": "thinking", "thinking": text, "signature": signature})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn tool(name: &str) -> Value {
    json!({"name": name, "input_schema": {"type": "object"}})
}

#[test]
fn a_wrong_member_is_refused_by_name() {
    let wrong = [
        ("model", json!("")),
        ("max_tokens", json!(null)),
        ("max_tokens", json!(0)),
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("n", json!(1)),
        ("temperature", json!(1.5)),
        ("stop_sequences", json!([" "])),
        ("stop_sequences", json!("END")),
        ("system", json!([{"type": "image"}])),
        ("tools", json!({})),
        ("tools", json!([{"name": "a b", "input_schema": {"type": "object"}}])),
        ("tools", json!([{"name": "a"}])),
        ("tools", json!([{"name": "a", "input_schema": {"type": "string"}}])),
        ("tool_choice", json!("auto")),
        ("tool_choice", json!({"type": "any"})),
        ("tool_choice", json!({"type": "tool", "name": "absent"})),
        ("thinking", json!({"type": "enabled"})),
        ("thinking", json!({"type": "enabled", "budget_tokens": 1023})),
        ("thinking", json!({"type": "enabled", "budget_tokens": 2000})),
        ("thinking", json!(true)),
    ];
    for (name, value) in wrong {
        let request = with(name, value);
        let refusal = check(&request).unwrap_err();
        assert_eq!(refusal.status, 400, "{request}");
        assert!(refusal.message.contains(name), "{request}: {}", refusal.message);
    }
}

#[test]
fn wrong_messages_are_refused() {
    let base64 = |kind: &str, data: &str| json!({"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}});
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let wrong = [
        json!([{"role": "assistant", "content": "first"}]),
        json!([{"role": "system", "content": "be good"}]),
        json!([{"role": "tool", "content": "x"}]),
        json!([{"role": "user", "content": "x", "name": "y"}]),
        json!([{"role": "user"}]),
        user(json!("")),
        user(json!([])),
        user(json!(7)),
        user(json!([text("")])),
        user(json!([{"type": "image_url"}])),
        user(json!([base64("image/bmp", "AAAA")])),
        user(json!([base64("image/png", "AAA")])),
        user(json!([{"type": "image", "source": {"type": "url", "url": "data:x"}}])),
        user(json!([{"type": "document", "source": {}}])),
        user(json!([call("x")])),
        user(json!([result("x")])),
        talk(json!([result("x")]), json!("x")),
        talk(json!([{"type": "tool_use", "id": "x", "name": "t", "input": "{}"}]), json!([result("x")])),
        // Not answered, half answered, answered twice over, or after a text.
        talk(json!([call("x")]), json!("and?")),
        talk(json!([call("x"), call("y")]), json!([result("x")])),
        talk(json!([call("x")]), json!([result("x"), result("y")])),
        talk(json!([call("x")]), json!([text("so"), result("x")])),
        json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": [call("x")]}]),
        talk(json!([thought("hm", "forged"), text("a")]), json!("x")),
        talk(json!([thought("hmm", &signature("hm"))]), json!("x")),
        talk(json!([{"type": "redacted_thinking"}]), json!("x")),
    ];
    for messages in wrong {
        let refusal = check(&with("messages", messages.clone())).err();
        assert_eq!(refusal.map(|refusal| refusal.status.as_u16()), Some(400), "{messages}");
    }
}

#[test]
fn a_whole_conversation_is_counted_and_the_last_user_is_heard() {
    let image = json!({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}});
    let document = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "four words of it"}});
    let said = json!([thought("hm", &signature("hm")), text("let me"), call("x"), call("y")]);
    let messages = json!([
        {"role": "user", "content": [text("a b "), image]},
        {"role": "user", "content": [text("c"), document]},
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result("y")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [text("d"), image]}]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    ]);
    let mut request = with("messages", messages);
    request["system"] = json!([text("be brief")]);
    let ask = check(&request).unwrap();
    assert_eq!(ask.prompt_tokens, 2 + (2 + 85) + (1 + 4) + 2 + 3 + (1 + 85));
    assert_eq!((ask.last_user_text.as_str(), ask.choices), ("a b c", 1));
    assert_eq!((ask.delivery, ask.thinking), (Delivery::Whole, Thinking::No));
}

#[test]
fn tools_are_chosen_as_asked() {
    let cases = [
        (json!({"type": "auto"}), "ab", Calling::May),
        (json!({"type": "none"}), "ab", Calling::No),
        (json!({"type": "any", "disable_parallel_tool_use": true}), "ab", Calling::Must),
        (json!({"type": "tool", "name": "b"}), "b", Calling::Must),
    ];
    let search = json!({"type": "web_search_20250305", "name": "web_search"});
    for (choice, callable, calling) in cases {
        let mut request = with("tools", json!([tool("a"), search, tool("b")]));
        request["tool_choice"] = choice.clone();
        let ask = check(&request).unwrap();
        let names: String = ask.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!((names.as_str(), ask.calling), (callable, calling), "{choice}");
        assert_eq!(ask.one_call_at_most, choice["disable_parallel_tool_use"] == true);
    }
}

#[test]
fn a_thinker_is_not_forced_and_shows_what_it_thought_before_a_call() {
    let enabled = json!({"type": "enabled", "budget_tokens": 1024});
    let mut request = with("thinking", enabled.clone());
    request["tools"] = json!([tool("t")]);
    assert_eq!(check(&request).unwrap().thinking, Thinking::Yes);
    request["tool_choice"] = json!({"type": "any"});
    assert!(check(&request).is_err());
    let cases = [
        (enabled.clone(), json!([thought("hm", &signature("hm")), call("x")]), true),
        (enabled, json!([call("x")]), false),
        (json!({"type": "adaptive"}), json!([call("x")]), true),
        (json!({"type": "disabled"}), json!([call("x")]), true),
    ];
    for (thinking, said, good) in cases {
        let mut request = with("messages", talk(said, json!([result("x")])));
        request["thinking"] = thinking;
        assert_eq!(check(&request).is_ok(), good, "{request}");
    }
}
