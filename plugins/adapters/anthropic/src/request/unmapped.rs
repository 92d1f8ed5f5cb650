//! What becomes of members that have no counterpart: dropped where the answer is the same without
//! them, refused where it would not be the one that was asked for.

use sluice_plugin::adapter::PluginError;

use crate::json::Node;

/// `node` is a member of the request that no other part has taken; its path is its name.
pub fn check(node: &Node<'_>) -> Result<(), PluginError> {
    let harmless = match node.path.as_str() {
        // Labels, hints and best efforts.
        "metadata" | "prompt_cache_key" | "prompt_cache_retention" | "seed" => true,
        // These ask for nothing at one value.
        "n" => node.raw.get() == "1",
        "logprobs" | "store" => node.raw.get() == "false",
        "top_logprobs" | "frequency_penalty" | "presence_penalty" => node.number()? == 0.0,
        "logit_bias" => node.clone().object()?.rest().next().is_none(),
        "modalities" => node.items()?.iter().all(|modality| modality.get() == "\"text\""),
        "verbosity" => node.text()? == "medium",
        _ => false,
    };
    if harmless { Ok(()) } else { Err(node.unserved(advice(&node.path))) }
}

fn advice(name: &str) -> &'static str {
    match name {
        "n" => "Anthropic gives one answer; send n requests",
        "logprobs" | "top_logprobs" => "Anthropic tells no log probabilities; leave it out",
        "store" => "Anthropic stores no answers; leave it out or send false",
        "frequency_penalty" | "presence_penalty" => "Anthropic has no penalties; leave it out or send 0",
        "logit_bias" => "Anthropic has no biases; leave it out",
        "modalities" | "audio" => "Anthropic answers with text only; leave it out",
        "prediction" => "Anthropic takes no predicted output; leave it out",
        "web_search_options" => "is OpenAI's search; offer a tool of your own instead",
        "verbosity" => "Anthropic has no such setting; say in the prompt how long the answer may be",
        _ => "is not known to Anthropic, or stands twice; leave it out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dropped(name: &str, value: &str) -> bool {
        let raw = serde_json::from_str(value).unwrap();
        check(&Node { path: name.into(), raw }).is_ok()
    }

    #[test]
    fn a_member_is_dropped_only_where_it_asks_for_nothing() {
        let harmless = [
            ("metadata", "{\"a\":\"b\"}"),
            ("seed", "7"),
            ("n", "1"),
            ("logprobs", "false"),
            ("store", "false"),
            ("frequency_penalty", "0"),
            ("presence_penalty", "0.0"),
            ("top_logprobs", "0"),
            ("logit_bias", "{}"),
            ("modalities", "[\"text\"]"),
            ("verbosity", "\"medium\""),
        ];
        for (name, value) in harmless {
            assert!(is_dropped(name, value), "{name}: {value}");
        }
        let refused = [
            ("n", "2"),
            ("logprobs", "true"),
            ("top_logprobs", "3"),
            ("store", "true"),
            ("frequency_penalty", "0.1"),
            ("presence_penalty", "\"x\""),
            ("logit_bias", "{\"1\":5}"),
            ("modalities", "[\"text\",\"audio\"]"),
            ("audio", "{}"),
            ("prediction", "{}"),
            ("web_search_options", "{}"),
            ("verbosity", "\"low\""),
            ("messages", "[]"),
            ("of_tomorrow", "1"),
        ];
        for (name, value) in refused {
            assert!(!is_dropped(name, value), "{name}: {value}");
        }
    }
}
