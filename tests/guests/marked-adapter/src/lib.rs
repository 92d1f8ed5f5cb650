//! An adapter that answers with its mark, and goes wrong in the way that the mark says.

#[path = "../../mark.rs"]
mod mark;

use mark::{burn, mark, spin};
use sluice_plugin::adapter::{
    Adapter, Decision, Inbound, Manifest, Mapped, Phase, PluginError, SameWire, Setup, manifest,
};
use sluice_plugin::codes::surface;

struct Marked;

impl Adapter for Marked {
    type Mapper = SameWire;

    fn describe() -> Manifest {
        if mark().0 == "spin-in-describe" {
            spin();
        }
        let doc = "For tests: answers with what was written into it.";
        Manifest {
            surfaces: vec![surface::OPENAI_CHAT],
            ..manifest("marked", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(_setup: Setup) -> Result<Marked, PluginError> {
        Ok(Marked)
    }

    fn self_test() -> Result<(), String> {
        match mark().0 {
            "trap-in-self-test" => panic!("a guest gave up"),
            "fail-self-test" => Err("two and two are five".into()),
            _ => Ok(()),
        }
    }

    fn plan(&self, request: &Inbound, _target_model: &str) -> Result<Decision, PluginError> {
        let (manner, text) = mark();
        // Ids end in the request's number, in hexadecimal; the vectors' end in none.
        let id = request.identity().request_id;
        let number = id.rsplit('-').next().and_then(|number| u64::from_str_radix(number, 16).ok());
        match manner {
            "trap-1-in-50" if number.is_some_and(|number| number % 50 == 0) => panic!("a guest gave up"),
            "trap-in-vector" if number.is_none() => panic!("a guest gave up"),
            "err-1-in-10" if number.is_some_and(|number| number % 10 == 0) => {
                return Err(PluginError::Internal("a guest says that it failed".into()));
            }
            "slow" => burn(1_000_000),
            _ => {}
        }
        let wire = format!(
            r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":0,"model":"marked","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
        );
        let wire = wire.into_bytes();
        Ok(Decision::Answer(vec![Mapped {
            wire,
            phase: Phase::Done,
            usage: None,
            finish: None,
            fault: None,
        }]))
    }
}

sluice_plugin::export_adapter!(Marked);
