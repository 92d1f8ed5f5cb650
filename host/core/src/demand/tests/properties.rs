//! What holds of any body.

use super::*;

/// `text` as a JSON string, each character escaped or not by chance.
fn spelled(text: &str, escape: u64) -> String {
    let characters = text.chars().enumerate().map(|(at, character)| {
        if escape >> (at % 64) & 1 == 1 {
            format!("\\u{:04x}", u32::from(character))
        } else {
            character.into()
        }
    });
    format!("\"{}\"", characters.collect::<String>())
}

/// Content that is text, of any depth, in the manners of all vendors.
fn any_text() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        "[a-z \"\\\\]{0,12}".prop_map(Value::from),
        "[a-z]{0,8}".prop_map(|text| json!({"type": "text", "text": text})),
        "[a-z]{0,8}".prop_map(|text| json!({"text": text})),
        "[a-z]{0,8}".prop_map(|text| json!({"type": "tool_use", "input": {"image_url": text}})),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        let list = prop::collection::vec(inner, 0..4);
        prop_oneof![
            list.clone().prop_map(|list| json!({"role": "user", "content": list})),
            list.clone().prop_map(|list| json!({"type": "tool_result", "content": list})),
            list.clone().prop_map(|list| json!({"type": "function_call_output", "output": list})),
            list.prop_map(|list| json!({"toolResult": {"content": list}})),
        ]
    })
}

const WRAPPERS: [(&str, &str, &str); 8] = [
    ("", "content", ""),
    ("type=tool_result", "content", ""),
    ("type=function_call_output", "output", ""),
    ("type=message", "content", ""),
    ("", "toolResult", "content"),
    ("", "functionResponse", "parts"),
    ("type=thinking", "thinking", ""),
    ("", "never_heard_of", "content"),
];

const PARTS: [(&str, &str); 10] = [
    ("image_url", "image_url"),
    ("image", "source"),
    ("input_image", "file_id"),
    ("input_audio", "input_audio"),
    ("file", "file"),
    ("document", "source"),
    ("text", "image_url"),
    ("", "inlineData"),
    ("", "image"),
    ("item_reference", "id"),
];

/// A part that is no text.
fn any_part() -> impl Strategy<Value = String> {
    (prop::sample::select(&PARTS[..]), any::<u64>(), any::<bool>()).prop_map(
        |((kind, name), escape, first)| {
            let kind = if kind.is_empty() {
                String::new()
            } else {
                format!("{}:{}", spelled("type", escape), spelled(kind, escape.rotate_left(7)))
            };
            let value = format!("{}:{{\"url\":\"x\"}}", spelled(name, escape.rotate_left(13)));
            match (kind.as_str(), first) {
                ("", _) => format!("{{{value}}}"),
                (kind, true) => format!("{{{kind},{value}}}"),
                (kind, false) => format!("{{{value},{kind}}}"),
            }
        },
    )
}

/// A body that hides the part below so many levels, among texts and doubled members.
fn any_hiding() -> impl Strategy<Value = String> {
    let level = (prop::sample::select(&WRAPPERS[..]), any::<u64>(), any_text(), 0_u8..4);
    (any_part(), prop::collection::vec(level, 1..12)).prop_map(|(part, levels)| {
        let content = levels.into_iter().fold(part, |inner, ((kind, outer, within), escape, text, twin)| {
            let list =
                if escape & 1 == 0 { format!("[{inner},{text}]") } else { format!("[{text},{inner}]") };
            let list =
                if within.is_empty() { list } else { format!("{{{}:{list}}}", spelled(within, escape)) };
            let member = format!("{}:{list}", spelled(outer, escape.rotate_left(9)));
            let twin = match twin {
                0 => format!("\"{outer}\":\"t\",{member}"),
                1 => format!("{member},\"{outer}\":\"t\""),
                _ => member,
            };
            let kind = kind.strip_prefix("type=").map(|kind| format!("\"type\":\"{kind}\","));
            format!("{{{}{twin}}}", kind.unwrap_or_default())
        });
        format!("{{\"model\":\"m\",\"messages\":[{content}]}}")
    })
}

fn no_less(more: &Demand, than: &Demand) -> bool {
    more.text_bytes >= than.text_bytes
        && more.opaque >= than.opaque
        && more.server_tools >= than.server_tools
        && more.choices >= than.choices
        && more.other_output >= than.other_output
        && more.other_rates >= than.other_rates
}

/// Members of a body, each with a value of its kind or of another.
fn any_member() -> impl Strategy<Value = (String, Value)> {
    let name = prop::sample::select(vec![
        "messages",
        "input",
        "content",
        "tools",
        "n",
        "best_of",
        "prompt",
        "modalities",
        "audio",
        "x",
        "service_tier",
        "web_search_options",
        "metadata",
        "generationConfig",
        "system",
        "container",
    ]);
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (0..9_u8).prop_map(Value::from),
        Just(json!("priority")),
        Just(json!([{"type": "web_search"}, {"type": "function"}])),
        Just(json!([{"type": "image"}, {"type": "text", "text": "t"}])),
        Just(json!({"candidateCount": 3, "voice": "v"})),
        prop::collection::vec(any_text(), 0..3).prop_map(Value::from),
    ];
    (name, value).prop_map(|(name, value)| (name.into(), value))
}

fn written<'m>(members: impl IntoIterator<Item = &'m (String, Value)>, escape: u64) -> String {
    let members = members.into_iter().map(|(name, value)| format!("{}:{value}", spelled(name, escape)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

proptest! {
    /// Nothing that is no text hides at any depth, in any spelling, beside any twin.
    #[test]
    fn a_hidden_part_is_found(body in any_hiding()) {
        prop_assert!(demand(&body).opaque >= 1, "{}", body);
    }

    /// The other way round, text is never opaque.
    #[test]
    fn text_alone_is_never_opaque(content in prop::collection::vec(any_text(), 0..4)) {
        let body = json!({"messages": [{"role": "user", "content": content}]});
        prop_assert_eq!(of(&body).opaque, 0, "{}", body);
    }

    #[test]
    fn bytes_bound_the_text(members in prop::collection::vec(any_member(), 0..6), escape in any::<u64>()) {
        let body = written(&members, escape);
        prop_assert!(demand(&body).text_bytes >= body.len() as u64 + BODY_TOKENS);
    }

    /// Neither escapes nor a second occurrence of a member make a body demand less.
    #[test]
    fn escapes_and_twins_never_lower_it(
        members in prop::collection::vec(any_member(), 1..6), twin in any_member(), at in any::<usize>(), escape in any::<u64>(),
    ) {
        let plain = demand(&written(&members, 0));
        prop_assert!(no_less(&demand(&written(&members, escape)), &plain));
        let name = members[at % members.len()].0.clone();
        for place in [0, members.len()] {
            let mut more = members.clone();
            more.insert(place, (name.clone(), twin.1.clone()));
            prop_assert!(no_less(&demand(&written(&more, escape)), &plain), "{:?}", more);
        }
    }

    /// Nor does cutting one text into two, as parts or as messages.
    #[test]
    fn splitting_never_lowers_it(texts in ("[a-zé\\\\\"]{0,9}", "[a-zé\\\\\"]{0,9}"), as_parts in any::<bool>()) {
        let part = |text: &str| json!({"type": "text", "text": text});
        let (one, two) = (&texts.0, &texts.1);
        let joined = format!("{one}{two}");
        let (whole, split) = if as_parts {
            (user(json!([part(&joined)])), user(json!([part(one), part(two)])))
        } else {
            let message = |text: &str| json!({"role": "user", "content": text});
            (json!({"messages": [message(&joined)]}), json!({"messages": [message(one), message(two)]}))
        };
        prop_assert!(no_less(&of(&split), &of(&whole)));
    }

    /// No bytes make it panic, and what is no JSON is refused.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\",:a-c0-9\\\\]{0,40}") {
        for body in [bytes.as_slice(), text.as_bytes()] {
            let is_json = serde_json::from_slice::<Value>(body).is_ok_and(|value| value.is_object());
            prop_assert_eq!(Demand::read(body).is_ok(), is_json || body.trim_ascii().is_empty());
        }
    }
}
