//! An adapter that answers with its mark, and goes wrong in the way that the mark says. With a manner
//! that begins with `map-` it asks a vendor, and makes the mark of whatever the vendor says.

#[path = "../../mark.rs"]
mod mark;

use mark::{burn, mark, spin};
use sluice_plugin::adapter::{
    Adapter, BodyPlan, CallPlan, Context, Credential, Decision, Framing, Header, Inbound, Manifest, Mapped,
    Mapper, Phase, PluginError, ResponsePlan, Route, Setup, manifest,
};
use sluice_plugin::codes::{endpoint, surface};

struct Marked;

impl Adapter for Marked {
    type Mapper = Marked;

    fn describe() -> Manifest {
        if mark().0 == "spin-in-describe" {
            spin();
        }
        let doc = "For tests: answers with what was written into it.";
        let route = Route { endpoint: endpoint::CHAT, method: "POST".into(), path: "/chat".into() };
        Manifest {
            surfaces: vec![surface::OPENAI_CHAT],
            routes: if maps() { vec![route] } else { Vec::new() },
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
        if maps() {
            return Ok(Decision::Send(plan(request.shape().streaming)));
        }
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
        Ok(Decision::Answer(vec![done(completion(&id, text))]))
    }

    fn whole(&self, context: Context, _: u16, _: Vec<Header>, body: Vec<u8>) -> Result<Mapped, PluginError> {
        check(&body)?;
        Ok(done(completion(&context.request_id, mark().1)))
    }
}

impl Mapper for Marked {
    fn new(_context: Context) -> Marked {
        Marked
    }

    fn push(&self, frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError> {
        frames.iter().try_for_each(|frame| check(frame))?;
        let text = mark().1;
        Ok(done(format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
        )))
    }

    fn close(&self) -> Result<Mapped, PluginError> {
        Err(PluginError::BadUpstream("it ended early".into()))
    }
}

fn maps() -> bool {
    mark().0.starts_with("map-")
}

/// What the vendor says does not matter, but for `nonsense`.
fn check(said: &[u8]) -> Result<(), PluginError> {
    if mark().0 == "map-trap" {
        panic!("a guest gave up");
    }
    if said.windows(8).any(|window| window == b"nonsense") {
        return Err(PluginError::BadUpstream("nonsense".into()));
    }
    Ok(())
}

fn plan(streaming: bool) -> CallPlan {
    CallPlan {
        method: "POST".into(),
        path: "/chat".into(),
        query: Vec::new(),
        headers: Vec::new(),
        auth: Credential::None,
        body: BodyPlan::Passthrough,
        limit_at: None,
        framing: if streaming { Framing::Sse } else { Framing::Whole },
        response: ResponsePlan::Mapped,
        carry: Vec::new(),
    }
}

fn completion(id: &str, text: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":0,"model":"marked","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
    )
}

fn done(wire: String) -> Mapped {
    Mapped { wire: wire.into_bytes(), phase: Phase::Done, usage: None, finish: None, fault: None }
}

sluice_plugin::export_adapter!(Marked);
