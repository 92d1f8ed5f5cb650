//! The laws of a meter, by hand with vendors' answers and by chance in between.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn streamed(events: &[&str]) -> Meter {
    let mut meter = Meter::default();
    events.iter().for_each(|event| meter.event(event.as_bytes()));
    meter
}

fn answered(body: &str) -> Meter {
    let mut meter = Meter::default();
    meter.whole(body.as_bytes());
    meter
}

fn used(input: u64, cached_input: u64, cache_write: u64, output: u64, reasoning: u64) -> Option<Usage> {
    Some(Usage { input, cached_input, cache_write, output, reasoning, ..Usage::default() })
}

/// What a chat's usage reads as.
fn read(usage: &str) -> Option<Usage> {
    streamed(&[&format!(r#"{{"choices":[],"usage":{usage}}}"#)]).usage()
}

#[test]
fn streams_of_real_shape_are_metered() {
    let openai = streamed(&[
        r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}],"usage":null,"obfuscation":"abcdef"}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":null}],"usage":null}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
        r#"{"id":"c","choices":[],"usage":{"prompt_tokens":1106,"completion_tokens":90,"total_tokens":1196,"prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":64,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#,
        "[DONE]",
    ]);
    assert_eq!(openai.usage(), used(82, 1024, 0, 26, 64));
    assert_eq!((openai.content_events(), openai.text_bytes(), openai.floor_tokens()), (2, 5, 2));

    let groq = streamed(&[
        r#"{"choices":[{"index":0,"delta":{"reasoning":"Hm"},"finish_reason":null}],"x_groq":{"id":"req_1"}}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"req_1","usage":{"queue_time":0.03,"prompt_tokens":22,"prompt_time":0.001,"completion_tokens":5,"completion_time":0.01,"total_tokens":27,"total_time":0.02}}}"#,
    ]);
    assert_eq!((groq.usage(), groq.content_events()), (used(22, 0, 0, 5, 0), 1));

    let mistral = streamed(&[
        r#"{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Ok"}]}]},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}}"#,
    ]);
    assert_eq!(
        (mistral.usage(), mistral.content_events(), mistral.text_bytes()),
        (used(7, 0, 0, 5, 0), 2, 4)
    );

    let deepseek = streamed(&[
        r#"{"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"So"},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":30,"total_tokens":130,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":20},"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36}}"#,
    ]);
    assert_eq!((deepseek.usage(), deepseek.content_events()), (used(36, 64, 0, 10, 20), 1));

    let openrouter = streamed(&[
        r#"{"provider":"Anthropic","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"a","reasoning_details":[{"type":"reasoning.text","text":"a"}]},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.95,"is_byok":false,"prompt_tokens_details":{"cached_tokens":100,"cache_write_tokens":50,"audio_tokens":0},"cost_details":{"upstream_inference_cost":null},"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0}}}"#,
    ]);
    assert_eq!((openrouter.usage(), openrouter.text_bytes()), (used(44, 100, 50, 2, 0), 1));

    let anthropic = streamed(&[
        r#"{"id":"msg_1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"}}],"model":"claude","object":"chat.completion.chunk"}"#,
        r#"{"id":"msg_1","choices":[],"usage":{"completion_tokens":4,"prompt_tokens":10,"total_tokens":14,"completion_tokens_details":null,"prompt_tokens_details":null}}"#,
    ]);
    assert_eq!(anthropic.usage(), used(10, 0, 0, 4, 0));
}

#[test]
fn usage_is_read_in_every_manner() {
    for (usage, want) in [
        // xAI: reasoning is in the sum alone.
        (
            r#"{"prompt_tokens":10120,"completion_tokens":1499,"total_tokens":14428,"prompt_tokens_details":{"cached_tokens":128},"completion_tokens_details":{"reasoning_tokens":2809}}"#,
            used(9992, 128, 0, 1499, 2809),
        ),
        (
            r#"{"prompt_tokens":12,"completion_tokens":1,"total_tokens":399,"completion_tokens_details":{"reasoning_tokens":386}}"#,
            used(12, 0, 0, 1, 386),
        ),
        // Gemini's thoughts are nowhere but in the sum.
        (r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":100}"#, used(5, 0, 0, 7, 88)),
        (
            r#"{"prompt_tokens":5,"completion_tokens":20,"total_tokens":35,"completion_tokens_details":{"reasoning_tokens":15}}"#,
            used(5, 0, 0, 5, 25),
        ),
        // A sum that is too small says nothing.
        (r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":1}"#, used(5, 0, 0, 7, 0)),
        // A part of the sum is missing.
        (r#"{"completion_tokens":7,"total_tokens":10}"#, used(3, 0, 0, 7, 0)),
        (r#"{"prompt_tokens":5,"total_tokens":10}"#, used(5, 0, 0, 0, 5)),
        (
            r#"{"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6,"completion_tokens":1}"#,
            used(6, 4, 0, 1, 0),
        ),
        (r#"{"input_tokens":5,"output_tokens":7}"#, used(5, 0, 0, 7, 0)),
        (r#"{"prompt_tokens":9,"completion_tokens":1,"cached_tokens":4}"#, used(5, 4, 0, 1, 0)),
        // Two names that differ: the one that costs more.
        (
            r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":8,"prompt_tokens_details":{"cached_tokens":2}}"#,
            used(7, 2, 0, 1, 0),
        ),
        // Details that do not fit come on top.
        (
            r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":6}}"#,
            used(5, 6, 0, 7, 0),
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":7,"total_tokens":18,"prompt_tokens_details":{"cached_tokens":6}}"#,
            used(5, 6, 0, 7, 0),
        ),
        (
            r#"{"prompt_tokens":5,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":8}}"#,
            used(5, 0, 0, 7, 8),
        ),
        // Other spellings of numbers.
        (r#"{"prompt_tokens":"5","completion_tokens":6.1}"#, used(5, 0, 0, 7, 0)),
        (r#"{"prompt_tokens":5,"completion_tokens":99999999999999999999999}"#, used(5, 0, 0, u64::MAX, 0)),
        (r#"{"prompt_tokens":5,"completion_tokens":1e30}"#, used(5, 0, 0, u64::MAX, 0)),
        (
            r#"{"prompt_tokens":5,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":-3},"completion_tokens_details":[]}"#,
            used(5, 0, 0, 7, 0),
        ),
        // Nothing to go by.
        (r#"{"prompt_tokens":-5,"completion_tokens":7}"#, None),
        (r#"{"prompt_tokens":5}"#, None),
        (r#"{"prompt_tokens":"x","completion_tokens":null}"#, None),
        (r#"{"total_tokens":10}"#, None),
        ("{}", None),
        ("null", None),
        ("7", None),
        ("[]", None),
    ] {
        assert_eq!(read(usage), want, "{usage}");
    }
}

#[test]
fn embeddings_have_input_alone() {
    for usage in [r#"{"prompt_tokens":8,"total_tokens":8}"#, r#"{"total_tokens":8}"#] {
        let meter =
            answered(&format!(r#"{{"object":"list","data":[{{"embedding":[0.5]}}],"usage":{usage}}}"#));
        assert_eq!((meter.usage(), meter.floor_tokens()), (used(8, 0, 0, 0, 0), 0), "{usage}");
    }
}

#[test]
fn the_last_usage_wins_unless_it_is_nothing() {
    let usage = |input: u64, output: u64| {
        format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output}}}}}"#)
    };
    let said = r#"{"choices":[{"delta":{"content":"x"}}]}"#.to_string();
    let after =
        |events: &[&String]| streamed(&events.iter().map(|event| event.as_str()).collect::<Vec<_>>()).usage();
    assert_eq!(after(&[&usage(5, 1), &said, &usage(5, 2)]), used(5, 0, 0, 2, 0));
    assert_eq!(after(&[&usage(5, 1), &said, &usage(0, 0)]), used(5, 0, 0, 1, 0));
    assert_eq!(
        after(&[&usage(5, 1), &r#"{"choices":[],"usage":{"prompt_tokens":9}}"#.into()]),
        used(5, 0, 0, 1, 0)
    );
    assert_eq!(after(&[&usage(0, 0)]), used(0, 0, 0, 0, 0));
    assert_eq!(after(&[&usage(0, 0), &said]), None);
    assert_eq!(after(&[&said]), None);
}

#[test]
fn only_what_carries_a_token_is_an_event_with_content() {
    for (event, events, bytes, floor) in [
        ("", 0, 0, 0),
        ("[DONE]", 0, 0, 0),
        ("[]", 0, 0, 0),
        (r#"{"choices":null}"#, 0, 0, 0),
        (r#"{"choices":[7,{"delta":"x"},{"delta":{"content":5,"tool_calls":{}}}]}"#, 0, 0, 0),
        (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, 0, 0, 0),
        (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, 0, 0, 0),
        (r#"{"choices":[{"delta":{"content":" "},"finish_reason":"stop"}]}"#, 1, 1, 1),
        (r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}"#, 2, 2, 2),
        (r#"{"choices":[{"delta":{"content":"a","reasoning":"b","refusal":"c"}}]}"#, 1, 3, 1),
        (r#"{"choices":[{"delta":{"reasoning":"abc","reasoning_content":"abc"}}]}"#, 1, 3, 1),
        (
            r#"{"choices":[{"delta":{"content":[{"type":"text","text":"ab"},"c",[{"thinking":"d"}],{"url":"x"}]}}]}"#,
            1,
            4,
            1,
        ),
        (r#"{"choices":[{"delta":{"content":[[[[[["deep"]]]]]]}}]}"#, 0, 0, 0),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"a_name_of_17_byte","arguments":""}}]}}]}"#,
            0,
            17,
            0,
        ),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"a\""}},{"function":{"arguments":":1}"}}]}}]}"#,
            1,
            7,
            1,
        ),
        (r#"{"choices":[{"delta":{"tool_calls":[{"custom":{"name":"f","input":"ab"}}]}}]}"#, 1, 3, 1),
        (r#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}"#, 1, 3, 1),
        (r#"{"choices":[{"text":"legacy"}]}"#, 1, 6, 1),
        // Of another kind than it should be, or there twice: what a client may read counts.
        (r#"{"choices":{"delta":{"content":"a"}}}"#, 0, 0, 0),
        (
            r#"{"choices":[[{"delta":{"content":"a"}}],{"delta":[{"content":"a"}]},"a",1.5,true,null]}"#,
            0,
            0,
            0,
        ),
        (r#"{"choices":[{"delta":{"content":"a","content":"bc"}}]}"#, 1, 3, 1),
        (r#"{"choices":[{"delta":{"content":"a"},"delta":{"refusal":"bc"}}]}"#, 1, 3, 1),
        (
            r#"{"choices":[{"delta":{"tool_calls":[7,[],{"function":"x"},{"function":{"input":"a"}}]}}]}"#,
            1,
            1,
            1,
        ),
        // What was said in all is repeated by some at the end.
        (r#"{"choices":[{"delta":{},"message":{"content":"all of it"}}]}"#, 0, 0, 0),
        (r#"{"choices":[{"delta":{"content":"a text of some length, in one go"}}]}"#, 1, 32, 4),
    ] {
        let meter = streamed(&[event]);
        let counts = (meter.content_events(), meter.text_bytes(), meter.floor_tokens());
        assert_eq!(counts, (events, bytes, floor), "{event}");
    }
}

#[test]
fn what_is_not_looked_into_may_be_as_deep_as_it_likes() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let event = format!(r#"{{"choices":[{{"logprobs":{deep},"delta":{{"audio":{deep},"content":"a"}}}}]}}"#);
    assert_eq!(streamed(&[&event]).text_bytes(), 1);
}

#[test]
fn bytes_are_those_without_escapes() {
    for text in ["", "a", "\"\\/\u{8}\u{c}\n\r\t", "é", "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}", "😀", "\\u0041"]
    {
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        for inner in [json!(text).to_string(), format!("\"{escaped}\"")] {
            let meter = streamed(&[&format!(r#"{{"choices":[{{"delta":{{"content":{inner}}}}}]}}"#)]);
            assert_eq!(meter.text_bytes(), text.len() as u64, "{inner}");
        }
    }
    let halves = streamed(&[
        r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ude00"}}]}"#,
    ]);
    assert_eq!((halves.text_bytes(), halves.content_events()), (4, 2));
    // Where the parser reads none, what stands beside it counts all the same.
    for event in [
        r#"{"choices":[{"delta":"\ud83d"},{"delta":{"content":"abc"}}]}"#,
        r#"{"\uDFFF":0,"choices":[{"\ud800":"\ud83d\ude00","delta":{"content":"abc"}}]}"#,
    ] {
        assert_eq!(streamed(&[event]).text_bytes(), 3, "{event}");
    }
}

#[test]
fn only_a_usage_and_nothing_else_is_kept_back() {
    for (event, only) in [
        (r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, true),
        (r#"{"choices":[ ],"usage": {}}"#, true),
        (r#"{"choices":null,"usage":{}}"#, true),
        (r#"{"usage":{},"error":null}"#, true),
        (r#"{"choices":[],"usage":null}"#, false),
        (r#"{"choices":[],"usage":[]}"#, false),
        (r#"{"choices":[],"prompt_filter_results":[]}"#, false),
        (r#"{"choices":[{"delta":{}}],"usage":{}}"#, false),
        (r#"{"choices":{},"usage":{}}"#, false),
        (r#"{"error":{"message":"m"},"usage":{}}"#, false),
        (r#"{"choices":[{"delta":{"content":"\"usage\""}}]}"#, false),
        (r#"{"x_groq":{"usage":{}}}"#, false),
        (r#"{"usage":{}"#, false),
        ("[DONE]", false),
        ("", false),
    ] {
        assert_eq!(is_usage_only(event.as_bytes()), only, "{event}");
    }
}

/// What one choice says in one event: where, and what.
fn any_delta() -> impl Strategy<Value = (usize, &'static str, String)> {
    let place = prop::sample::select(vec!["content", "refusal", "reasoning", "arguments", "input"]);
    (0..3_usize, place, "[a-zé😀\\\\\"\n\u{1}]{0,12}")
}

/// Sets or lengthens what a speech says at a place.
fn say(speech: &mut Value, place: &str, text: &str) {
    let slot = match place {
        "arguments" => &mut speech["tool_calls"][0]["function"]["arguments"],
        "input" => &mut speech["tool_calls"][1]["custom"]["input"],
        place => &mut speech[place],
    };
    *slot = json!(format!("{}{text}", slot.as_str().unwrap_or_default()));
}

fn any_usage() -> impl Strategy<Value = (u64, u64, u64, u64, u64, u64)> {
    let count = || prop_oneof![4 => 0..100_u64, 1 => Just(u64::MAX)];
    (count(), count(), count(), count(), count(), count())
}

proptest! {
    /// The same text counts the same, streamed or whole, and the floor never falls.
    #[test]
    fn a_stream_and_the_whole_count_alike(deltas in prop::collection::vec(any_delta(), 0..20)) {
        let mut streamed = Meter::default();
        let mut speeches = vec![json!({"tool_calls": [{}, {}]}); 3];
        let mut bytes = 0;
        for (choice, place, text) in &deltas {
            let mut delta = json!({"tool_calls": [{}, {}]});
            say(&mut delta, place, text);
            say(&mut speeches[*choice], place, text);
            let (floor, events) = (streamed.floor_tokens(), streamed.content_events());
            streamed.event(json!({"choices": [{"index": choice, "delta": delta}]}).to_string().as_bytes());
            bytes += text.len() as u64;
            prop_assert!(streamed.floor_tokens() >= floor);
            prop_assert_eq!(streamed.content_events(), events + u64::from(!text.is_empty()));
        }
        let choices: Vec<Value> = speeches.into_iter().map(|speech| json!({"message": speech})).collect();
        let whole = answered(&json!({"choices": choices}).to_string());
        prop_assert_eq!(streamed.text_bytes(), bytes);
        prop_assert_eq!(whole.text_bytes(), bytes);
        prop_assert_eq!((whole.content_events(), whole.floor_tokens()), (0, bytes / TOKEN_BYTES));
        prop_assert!(whole.floor_tokens() <= streamed.floor_tokens());
        prop_assert!(streamed.floor_tokens() <= bytes);
    }

    /// Whatever a vendor says, its totals are in it, and details never make it less.
    #[test]
    fn details_never_make_a_usage_less((input, output, total, cached, write, reasoning) in any_usage()) {
        let plain = json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total});
        let mut detailed = plain.clone();
        detailed["prompt_tokens_details"] = json!({"cached_tokens": cached, "cache_write_tokens": write});
        detailed["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
        let [plain, detailed] = [plain, detailed].map(|usage| read(&usage.to_string()).unwrap());
        let sum = |usage: &Usage| usage.input_tokens().saturating_add(usage.output_tokens());
        prop_assert!(sum(&plain) >= total.max(input.saturating_add(output)));
        prop_assert!(detailed.input_tokens() >= input.max(cached).max(write));
        prop_assert!(detailed.output_tokens() >= output.max(reasoning));
        prop_assert!(sum(&detailed) >= sum(&plain));
    }

    /// A usage that adds up is read exactly.
    #[test]
    fn honest_usage_is_read_exactly(classes in prop::array::uniform5(0..1_000_000_u64)) {
        let [input, cached, write, output, reasoning] = classes;
        let (prompt, completion) = (input + cached + write, output + reasoning);
        let mut usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": write},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        });
        prop_assert_eq!(read(&usage.to_string()), used(input, cached, write, output, reasoning));
        usage["completion_tokens"] = json!(output);
        prop_assert_eq!(read(&usage.to_string()), used(input, cached, write, output, reasoning), "as xAI has it");
    }

    /// No bytes make it panic, and what is kept from clients never says anything.
    #[test]
    fn any_event_is_read(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[{}\\[\\]\",:a-c0-9\\\\]{0,40}") {
        for data in [bytes.as_slice(), text.as_bytes()] {
            let mut meter = Meter::default();
            meter.event(data);
            meter.whole(data);
            prop_assert!(!is_usage_only(data) || meter.text_bytes() == 0);
        }
    }
}
