//! The laws of a demand, by hand with vendors' bodies and by chance in between.

mod properties;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn demand(body: &str) -> Demand {
    Demand::read(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn of(body: &Value) -> Demand {
    demand(&body.to_string())
}

/// `text_bytes` is not compared.
#[track_caller]
fn assert_plain(body: &Value) {
    let demand = of(body);
    let plain = Demand {
        text_bytes: demand.text_bytes,
        opaque: 0,
        server_tools: 0,
        choices: 1,
        other_output: false,
        other_rates: false,
    };
    assert_eq!(demand, plain, "{body}");
}

fn user(content: Value) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": content}]})
}

#[test]
fn chats_of_text_and_the_clients_tools_are_plain() {
    // A schema may speak of images.
    let schema = json!({"type": "object", "required": ["image_url"], "properties": {
        "image_url": {"type": "string"}, "file": {"type": "string"}, "n": {"type": "integer", "default": 9},
        "content": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "image"}]}},
    }});
    assert_plain(&json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5,
        "n": 1, "stop": ["a"], "user": "u", "logit_bias": {"5": -100}, "seed": 7, "max_tokens": 9,
        "service_tier": "auto", "modalities": ["text"], "audio": null, "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
            {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar"}}},
        ],
        "functions": [{"name": "f", "parameters": schema}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}], "name": "u"},
            {"role": "assistant", "content": null, "refusal": null, "audio": null, "reasoning_content": "r",
             "tool_calls": [{"id": "1", "type": "function", "index": 0,
                             "function": {"name": "f", "arguments": "{\"image_url\":\"x\"}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ],
    }));
    assert_plain(&json!({
        "model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 4}, "metadata": {"user_id": "u"},
        "tools": [{"name": "f", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral", "ttl": "5m"}},
                  {"type": "custom", "name": "g", "input_schema": schema}],
        "messages": [{"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "tool_use", "id": "i", "name": "f", "input": {"image_url": "x", "content": [{"type": "image"}]}},
        ]}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "i", "is_error": false, "content": [{"type": "text", "text": "t"}]},
        ]}],
    }));
}

#[test]
fn texts_in_the_other_wires_are_plain() {
    for body in [
        json!({"model": "m", "instructions": "i", "store": false, "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "schema": {}}, "verbosity": "low"},
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": true}],
        "input": [
            {"role": "user", "content": "t"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "t", "annotations": []}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}],
             "encrypted_content": "gAAA"},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "t"},
            {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "t"},
        ]}),
        json!({"model": "m", "input": "t", "encoding_format": "base64", "dimensions": 256}),
        json!({"model": "m", "input": ["t", "u"]}),
        json!({"model": "m", "input": [[1, 2], [3]]}),
        json!({"model": "m", "prompt": [1, 2, 3], "suffix": "s"}),
        json!({"contents": [{"role": "model", "parts": [
                {"text": "t"}, {"functionCall": {"id": "1", "name": "f", "args": {"image": {}}}},
                {"functionResponse": {"id": "1", "name": "f", "response": {"image": {}}}},
            ]}],
            "systemInstruction": {"parts": [{"text": "t"}]},
            "tools": [{"functionDeclarations": [{"name": "f"}]}],
            "generationConfig": {"candidateCount": 1, "responseModalities": ["TEXT"]}}),
        json!({"messages": [{"role": "user", "content": [
                {"text": "t"}, {"toolUse": {"toolUseId": "1", "name": "f", "input": {}}},
                {"toolResult": {"toolUseId": "1", "status": "success", "content": [{"text": "t"}, {"json": {}}]}},
                {"cachePoint": {"type": "default"}},
            ]}],
            "inferenceConfig": {"maxTokens": 4}, "toolConfig": {"tools": [{"toolSpec": {"name": "f"}}]}}),
        json!({"messages": [{"role": "assistant", "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "t"}]}]}),
    ] {
        assert_plain(&body);
    }
}

#[test]
fn parts_that_are_no_text_are_opaque() {
    for (content, opaque) in [
        (json!([{"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}]), 1),
        (
            json!([{"type": "text", "text": "t"}, {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]),
            1,
        ),
        (
            json!([{"type": "file", "file": {"file_id": "f"}}, {"type": "file", "file": {"file_data": "x"}}]),
            2,
        ),
        (json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}]), 1),
        (json!([{"type": "document", "source": {"type": "file", "file_id": "f"}, "title": "t"}]), 1),
        (json!([{"type": "container_upload", "file_id": "f"}]), 1),
        (
            json!([{"type": "tool_result", "content": [{"type": "image", "source": {}}, {"type": "text", "text": ""}]}]),
            1,
        ),
        (json!([{"type": "video", "video": ["a", "b", "c"]}]), 3),
        (json!([{"inlineData": {"mimeType": "image/png", "data": "x"}}]), 1),
        (json!([{"image": {"format": "png", "source": {"bytes": "x"}}}]), 1),
        (json!([{"toolResult": {"content": [{"document": {}}]}}]), 1),
        (json!([{"type": 5}]), 1),
        (json!([{"type": "text", "text": {"type": "image"}}]), 1),
        (json!([{"type": "text", "data": "x"}]), 1),
        (json!([{"type": "text", "input": [{"type": "image"}]}]), 1),
        (json!([{"type": "text", "input": {"a": [["x"], ["y"]]}}]), 5),
        (json!({"type": "image_url", "image_url": "x"}), 1),
        (json!([[{"type": "image_url"}]]), 1),
    ] {
        assert_eq!(of(&user(content.clone())).opaque, opaque, "{content}");
    }
}

#[test]
fn what_is_stored_elsewhere_is_opaque() {
    for body in [
        json!({"previous_response_id": "r"}),
        json!({"conversation": {"id": "c"}}),
        json!({"prompt": {"id": "p"}}),
        json!({"container": "c"}),
        json!({"cachedContent": "cachedContents/1"}),
        json!({"image": "data:image/png;base64,"}),
        json!({"images": ["x"]}),
        json!({"audio": "x"}),
        json!({"audio": {"data": "x"}}),
        json!({"extra_body": {"google": {"cached_content": "x"}}}),
        json!({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}),
        json!({"messages": [{"role": "user", "content": "t", "images": ["x"]}]}),
        json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        json!({"input": [{"id": "msg_1"}]}),
        json!({"input": [{"type": null, "id": "msg_1", "role": null}]}),
        json!({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}),
        json!({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": ""}]}),
        json!({"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}}]}),
        json!({"input": [{"image": "https://x"}]}),
        json!({"inputs": [{"content": [{"type": "image_base64", "image_base64": "x"}]}]}),
    ] {
        assert!(of(&body).opaque >= 1, "{body}");
    }
}

#[test]
fn tools_of_the_vendor_count() {
    for (body, tools) in [
        (json!({"tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]}), 1),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}, {"type": "code_execution_20250825"}]}),
            2,
        ),
        (
            json!({"tools": [{"type": "file_search"}, {"type": "mcp"}, {"type": "code_interpreter"}, {"type": "bash_20250124"}]}),
            4,
        ),
        (json!({"tools": [{"googleSearch": {}}, {"codeExecution": {}}, {"functionDeclarations": []}]}), 2),
        (json!({"tools": [{"type": "function", "googleSearch": {}}]}), 1),
        (json!({"tools": [{"type": ["function"]}]}), 1),
        (json!({"tools": ["web_search"]}), 1),
        (json!({"tools": {"type": "web_search"}}), 2),
        (json!({"tools": null}), 0),
        (json!({"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}), 1),
        (json!({"web_search_options": {}}), 1),
        (json!({"search_parameters": {"mode": "auto"}}), 1),
        (json!({"enable_search": true}), 1),
        (json!({"enable_search": false}), 0),
        (json!({"parameters": {"enable_search": true}}), 1),
        (json!({"plugins": [{"id": "web"}, {"id": "file-parser"}]}), 2),
        (json!({"mcp_servers": [{"type": "url", "url": "https://x"}]}), 1),
    ] {
        assert_eq!(of(&body).server_tools, tools, "{body}");
    }
}

#[test]
fn choices_are_all_answers_that_are_billed() {
    for (body, choices) in [
        (r#"{}"#, 1),
        (r#"{"n":0}"#, 1),
        (r#"{"n":-4}"#, 1),
        (r#"{"n":null}"#, 1),
        (r#"{"n":3}"#, 3),
        (r#"{"N":3}"#, 3),
        (r#"{"\u006e":3}"#, 3),
        (r#"{"n":3,"n":1}"#, 3),
        (r#"{"n":1,"n":3}"#, 3),
        (r#"{"n":2,"best_of":5}"#, 5),
        (r#"{"n":2.0}"#, 2),
        (r#"{"n":2e0}"#, 2),
        (r#"{"n":2.1}"#, 3),
        (r#"{"n":"4"}"#, 4),
        (r#"{"n":[4]}"#, 1),
        (r#"{"n":99999999999999999999}"#, u32::MAX),
        (r#"{"n":4294967296,"prompt":["a","b"]}"#, u32::MAX),
        (r#"{"prompt":"a"}"#, 1),
        (r#"{"prompt":["a","b"],"n":3}"#, 6),
        (r#"{"prompt":[1,2,3]}"#, 1),
        (r#"{"prompt":[[1,2],[3]]}"#, 2),
        (r#"{"generationConfig":{"candidateCount":4}}"#, 4),
        (r#"{"metadata":{"n":4}}"#, 1),
    ] {
        assert_eq!(demand(body).choices, choices, "{body}");
    }
}

#[test]
fn output_and_rates_that_are_priced_apart_are_seen() {
    for (body, other) in [
        (json!({"modalities": ["text", "audio"], "audio": {"voice": "v", "format": "wav"}}), true),
        (json!({"audio": {"voice": "v"}}), true),
        (json!({"modalities": "image"}), true),
        (json!({"modalities": [["audio"]]}), true),
        (json!({"modalities": {"a": 1}}), true),
        (json!({"generationConfig": {"responseModalities": ["IMAGE"]}}), true),
        (json!({"voice": "v"}), true),
        (json!({"modalities": null, "voice": null}), false),
        (json!({"modalities": ["text"]}), false),
    ] {
        assert_eq!(of(&body).other_output, other, "{body}");
        assert_eq!(of(&body).opaque, 0, "{body}");
    }
    for (body, other) in [
        (json!({"prediction": {"type": "content", "content": "t"}}), true),
        (json!({"prediction": null}), false),
        (json!({"service_tier": "priority"}), true),
        (json!({"service_tier": "flex"}), false),
        (json!({"service_tier": null}), false),
        (json!({"speed": "fast"}), true),
        (json!({"inference_geo": "us"}), true),
        (json!({"provider": {"order": ["a"]}}), true),
        (json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}}), true),
        (user(json!([{"type": "text", "text": "t", "cache_control": {"ttl": "1h"}}])), true),
        (json!({"tools": [{"name": "f", "cache_control": {"ttl": "1h"}}]}), true),
        (json!({"tools": [{"name": "f", "input_schema": {"ttl": "1h"}}]}), false),
    ] {
        assert_eq!(of(&body).other_rates, other, "{body}");
    }
}

#[test]
fn no_spelling_and_no_second_occurrence_hides_anything() {
    for body in [
        r#"{"messages":[{"content":[{"type":"text","im\u0061ge_url":"x"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"image","type":"text"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"text","type":"image"}]}]}"#,
        r#"{"messages":[{"content":[{"t\u0079pe":"im\u0061ge"}]}]}"#,
        r#"{"messages":[{"content":"t","content":[{"type":"image"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"image"}],"content":"t"}]}"#,
        r#"{"messages":[{"content":[{"type":"image"}]}],"messages":[]}"#,
        r#"{"\u006dessages":[{"c\u006fntent":[{"type":"image"}]}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_use","type":"text","input":[{"type":"image"}]}]}]}"#,
        r#"{"messages":[{"content":[{"input":[{"type":"image"}],"type":"tool_use","type":null}]}]}"#,
        r#"{"input":[{"type":"reasoning","id":"r","encrypted_content":"x","encrypted_content":null}]}"#,
        r#"{"input":[{"type":"message","type":null,"id":"r"}]}"#,
        r#"{"input":[{"id":"r","role":"user","role":null}]}"#,
        r#"{"Messages":[{"content":[{"type":"image"}]}]}"#,
    ] {
        assert!(demand(body).opaque >= 1, "{body}");
    }
    for body in [
        r#"{"tools":[{"type":"web_search","type":"function"}]}"#,
        r#"{"tools":[{"type":"function","type":"web_search"}]}"#,
        r#"{"tools":[{"t\u0079pe":"web_search"}]}"#,
        r#"{"to\u006fls":[{"type":"web_search"}],"tools":[]}"#,
        r#"{"web_se\u0061rch_options":{}}"#,
    ] {
        assert!(demand(body).server_tools >= 1, "{body}");
    }
}

#[test]
fn what_cannot_be_read_is_not_bounded() {
    for (body, error) in [
        ("x", NotBounded::NotJson),
        ("{", NotBounded::NotJson),
        ("{}x", NotBounded::NotJson),
        ("{}{}", NotBounded::NotJson),
        ("[", NotBounded::NotJson),
        ("\u{feff}{}", NotBounded::NotJson),
        (r#"{"a":"\ud800"}"#, NotBounded::NotJson),
        ("--boundary\r\n", NotBounded::NotJson),
        ("[]", NotBounded::NotAnObject),
        ("null", NotBounded::NotAnObject),
        ("\"x\"", NotBounded::NotAnObject),
    ] {
        assert_eq!(Demand::read(body.as_bytes()), Err(error), "{body}");
    }
    assert_eq!(Demand::read(b"{\"a\":\"\xff\"}"), Err(NotBounded::NotJson));
    for body in ["", " \n"] {
        assert_eq!(demand(body).opaque, 0);
        assert_eq!(demand(body).text_bytes, BODY_TOKENS + body.len() as u64);
    }
}

#[test]
fn depth_has_a_bound_and_it_is_reached() {
    let nested = |levels: usize| {
        let (open, close) = (r#"{"content":["#, "]}");
        let inner = "[".repeat(levels % 2) + &"]".repeat(levels % 2);
        format!("{}{inner}{}", open.repeat(levels / 2), close.repeat(levels / 2))
    };
    let deepest = usize::from(DEPTH_MAX);
    assert_eq!(Demand::read(nested(deepest).as_bytes()).map(|demand| demand.opaque), Ok(0));
    for levels in [deepest + 1, deepest + 2, 127, 128, 129, 200_000] {
        assert_eq!(Demand::read(nested(levels).as_bytes()), Err(NotBounded::TooDeep), "{levels}");
    }
}

#[test]
fn messages_and_tools_have_their_margins() {
    let message = |count: usize| {
        let messages: Vec<Value> = (0..count).map(|_| json!({"role": "user", "content": ""})).collect();
        let body = json!({"messages": messages}).to_string();
        demand(&body).text_bytes - body.len() as u64
    };
    // The element, its two members and the end of both.
    assert_eq!(message(3) - message(2), ENTRY_TOKENS + 4 * VALUE_TOKENS);
    let tools = |count: usize| {
        let tools: Vec<Value> = (0..count).map(|_| json!({"name": "f"})).collect();
        let body = json!({"tools": tools}).to_string();
        demand(&body).text_bytes - body.len() as u64
    };
    assert_eq!(tools(1) - tools(0), TOOLS_TOKENS + TOOL_TOKENS + 3 * VALUE_TOKENS);
    assert_eq!(tools(3) - tools(2), TOOL_TOKENS + 3 * VALUE_TOKENS);
}
