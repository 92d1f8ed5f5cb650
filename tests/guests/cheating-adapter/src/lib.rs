//! An adapter for OpenAI's wire that spends more than it tells, in the way that the target's model is
//! called. The vendor's answer itself is in order.

use std::cell::Cell;

use serde_json::Value;
use sluice_plugin::adapter::{
    Adapter, BodyPlan, CallPlan, Context, Credential, Decision, Failure, Framing, Header, Inbound, Manifest,
    Mapped, Mapper, Phase, PluginError, ResponsePlan, Route, SecretSlot, Setup, Slotted, Usage, Verdict,
    manifest,
};
use sluice_plugin::codes::{endpoint, surface};

const CHAT_PATH: &str = "/chat/completions";

/// A completion that says as little as there is.
const TRIFLE: &str = r#"{"id":"c","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

/// The same of a stream, after its first word.
const TRIFLE_END: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

struct Cheating;

impl Adapter for Cheating {
    type Mapper = Decoder;

    fn describe() -> Manifest {
        Manifest {
            surfaces: vec![surface::OPENAI_CHAT],
            secrets: vec![SecretSlot {
                name: "api-key".into(),
                required: false,
                doc: "The vendor's.".into(),
            }],
            routes: vec![Route { endpoint: endpoint::CHAT, method: "POST".into(), path: CHAT_PATH.into() }],
            headers: vec!["content-type".into()],
            ..manifest("cheating-adapter", env!("CARGO_PKG_VERSION"), "For tests: tells less than it spends.")
        }
    }

    fn configure(_setup: Setup) -> Result<Cheating, PluginError> {
        Ok(Cheating)
    }

    fn plan(&self, request: &Inbound, target_model: &str) -> Result<Decision, PluginError> {
        let cheat = Cheat::named(target_model);
        let limit_at = match cheat {
            Some(Cheat::NoLimit) => None,
            Some(Cheat::WrongLimit) => Some("/max_tokenz".into()),
            Some(_) | None => Some("/max_tokens".into()),
        };
        let same_wire = cheat.is_none_or(Cheat::passes);
        Ok(Decision::Send(CallPlan {
            method: "POST".into(),
            path: CHAT_PATH.into(),
            query: Vec::new(),
            headers: vec![Header { name: "content-type".into(), value: "application/json".into() }],
            auth: Credential::Header(Slotted {
                name: "authorization".into(),
                prefix: "Bearer ".into(),
                slot: "api-key".into(),
                suffix: String::new(),
            }),
            body: BodyPlan::Passthrough,
            limit_at,
            framing: if request.shape().streaming { Framing::Sse } else { Framing::Whole },
            response: if same_wire { ResponsePlan::SameWire } else { ResponsePlan::Mapped },
            carry: target_model.as_bytes().to_vec(),
        }))
    }

    fn whole(&self, context: Context, _: u16, _: Vec<Header>, body: Vec<u8>) -> Result<Mapped, PluginError> {
        let wire = match Cheat::carried(&context) {
            Some(Cheat::Swallow | Cheat::HangUp) => TRIFLE.into(),
            Some(_) | None => without_usage(&body)?.into_bytes(),
        };
        Ok(Cheat::carried(&context).told(wire, Phase::Done))
    }
}

/// What it does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cheat {
    /// Names no place for the limit.
    NoLimit,
    /// Names a place at which no vendor looks.
    WrongLimit,
    /// Tells of one token each, whatever the answer.
    Ones,
    /// Tells of nothing.
    Silent,
    /// Shows a word of the answer, and tells of one token.
    Swallow,
    /// The same, and says that the stream is over while the vendor still talks.
    HangUp,
    /// Says that the vendor has failed.
    Fail,
}

impl Cheat {
    fn named(name: &str) -> Option<Cheat> {
        Some(match name {
            "no-limit" => Cheat::NoLimit,
            "wrong-limit" => Cheat::WrongLimit,
            "ones" => Cheat::Ones,
            "silent" => Cheat::Silent,
            "swallow" => Cheat::Swallow,
            "hang-up" => Cheat::HangUp,
            "fail" => Cheat::Fail,
            // The vectors of admission.
            _ => return None,
        })
    }

    fn carried(context: &Context) -> Option<Cheat> {
        Cheat::named(std::str::from_utf8(&context.carry).unwrap_or_default())
    }

    /// The vendor's bytes go to the client as they are.
    fn passes(self) -> bool {
        matches!(self, Cheat::NoLimit | Cheat::WrongLimit)
    }
}

/// How an answer is told.
trait Tell {
    fn told(self, wire: Vec<u8>, phase: Phase) -> Mapped;
}

impl Tell for Option<Cheat> {
    fn told(self, wire: Vec<u8>, phase: Phase) -> Mapped {
        let one =
            Usage { input: 1, cached_input: 0, cache_write: 0, output: 1, reasoning: 0, calls: 0, millis: 0 };
        let usage = (self != Some(Cheat::Silent)).then_some(one);
        let failed = Verdict { kind: Failure::Transient, retry_after_ms: None, message: "it failed".into() };
        let fails = self == Some(Cheat::Fail) && phase == Phase::Done;
        let usage = usage.filter(|_| !fails);
        let wire = if self == Some(Cheat::Fail) { Vec::new() } else { wire };
        Mapped { wire, phase, usage, finish: None, fault: fails.then_some(failed) }
    }
}

/// A stream under way.
struct Decoder {
    cheat: Option<Cheat>,
    begun: Cell<bool>,
    ended: Cell<bool>,
}

impl Mapper for Decoder {
    fn new(context: Context) -> Decoder {
        Decoder { cheat: Cheat::carried(&context), begun: Cell::new(false), ended: Cell::new(false) }
    }

    fn push(&self, frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError> {
        let (mut wire, mut phase) = (String::new(), Phase::Prelude);
        for frame in frames {
            let done = frame == b"[DONE]";
            let event = if done { None } else { Some(without_usage(&frame)?) };
            let speaks = event.as_ref().is_some_and(|event| event.contains("\"content\":\""));
            let first = speaks && !self.begun.replace(self.begun.get() || speaks);
            match self.cheat {
                Some(Cheat::HangUp) if first => {
                    wire += &format!("data: {}\n\n{TRIFLE_END}", event.unwrap_or_default());
                    phase = Phase::Done;
                    break;
                }
                Some(Cheat::Swallow | Cheat::HangUp) if !first && !done => {}
                _ if done => {
                    wire += if self.cheat == Some(Cheat::Swallow) { TRIFLE_END } else { "data: [DONE]\n\n" };
                    phase = Phase::Done;
                }
                _ => {
                    wire += &format!("data: {}\n\n", event.unwrap_or_default());
                    if speaks && self.cheat != Some(Cheat::Fail) {
                        phase = Phase::Content;
                    }
                }
            }
        }
        self.ended.set(self.ended.get() || phase == Phase::Done);
        Ok(self.cheat.told(wire.into_bytes(), phase))
    }

    fn close(&self) -> Result<Mapped, PluginError> {
        match self.ended.get() {
            true => Ok(self.cheat.told(Vec::new(), Phase::Done)),
            false => Err(PluginError::BadUpstream("it ended early".into())),
        }
    }
}

/// An event, or a whole answer, that says nothing of tokens.
fn without_usage(json: &[u8]) -> Result<String, PluginError> {
    let bad = |error: serde_json::Error| PluginError::BadUpstream(error.to_string());
    let mut value: Value = serde_json::from_slice(json).map_err(bad)?;
    if let Some(members) = value.as_object_mut() {
        members.remove("usage");
    }
    Ok(value.to_string())
}

sluice_plugin::export_adapter!(Cheating);
