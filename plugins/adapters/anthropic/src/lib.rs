//! Adapter for Anthropic's Messages API: OpenAI's chat dialect there and back.
//!
//! The request is rewritten as a whole, so that each plan is made for one request alone.

mod answer;
mod carry;
mod config;
mod fault;
mod json;
mod openai;
mod request;
mod stream;
#[cfg(test)]
mod tests;
mod usage;
mod wire;

use std::cell::RefCell;

use config::Config;
use sluice_plugin::adapter::{
    Adapter, BodyPlan, CallPlan, Context, Credential, Decision, Framing, Header, Inbound, Manifest, Mapped,
    Mapper, PluginError, ResponsePlan, Route, SecretSlot, Setup, Slotted, Verdict, manifest,
};
use sluice_plugin::codes::{endpoint, surface};
use stream::Stream;

/// Under the operator's base URL, which ends in the version: `https://api.anthropic.com/v1`.
const MESSAGES_PATH: &str = "/messages";

/// The header for features in trial, ours and the client's.
const BETA: &str = "anthropic-beta";

struct Anthropic {
    config: Config,
}

impl Adapter for Anthropic {
    type Mapper = Decoder;

    fn describe() -> Manifest {
        let headers = ["accept", "anthropic-beta", "anthropic-version", "content-type"];
        Manifest {
            surfaces: vec![surface::OPENAI_CHAT],
            secrets: vec![SecretSlot {
                name: "api-key".into(),
                required: true,
                doc: "Anthropic's key, sent as the header x-api-key.".into(),
            }],
            routes: vec![Route {
                endpoint: endpoint::CHAT,
                method: "POST".into(),
                path: MESSAGES_PATH.into(),
            }],
            headers: headers.map(String::from).into(),
            config_schema: include_str!("schema.json").into(),
            ..manifest("anthropic", env!("CARGO_PKG_VERSION"), "Anthropic's Messages API.")
        }
    }

    fn configure(setup: Setup) -> Result<Anthropic, PluginError> {
        Ok(Anthropic { config: Config::parse(&setup.config_json)? })
    }

    fn self_test() -> Result<(), String> {
        self_test()
    }

    fn plan(&self, request: &Inbound, target_model: &str) -> Result<Decision, PluginError> {
        let shape = request.shape();
        if shape.endpoint != endpoint::CHAT {
            return Err(PluginError::Unsupported("this adapter serves chat completions".into()));
        }
        let outgoing = request::map(&request.body(), target_model, shape.streaming, &self.config)?;
        let accept = if shape.streaming { "text/event-stream" } else { "application/json" };
        let mut headers = vec![
            header("content-type", "application/json"),
            header("accept", accept),
            header("anthropic-version", &self.config.version),
        ];
        let betas = self.config.betas(request.header(BETA).as_deref());
        headers.extend(betas.map(|names| header(BETA, &names)));
        Ok(Decision::Send(CallPlan {
            method: "POST".into(),
            path: MESSAGES_PATH.into(),
            query: Vec::new(),
            headers,
            auth: Credential::Header(Slotted {
                name: "x-api-key".into(),
                prefix: String::new(),
                slot: "api-key".into(),
                suffix: String::new(),
            }),
            body: BodyPlan::Replace(outgoing.body),
            limit_at: Some("/max_tokens".into()),
            framing: if shape.streaming { Framing::Sse } else { Framing::Whole },
            response: ResponsePlan::Mapped,
            carry: outgoing.carry.to_bytes(),
        }))
    }

    fn whole(
        &self,
        context: Context,
        _status: u16,
        _headers: Vec<Header>,
        body: Vec<u8>,
    ) -> Result<Mapped, PluginError> {
        answer::map(&context, &body)
    }

    fn classify(&self, _context: Context, status: u16, headers: Vec<Header>, body: Vec<u8>) -> Verdict {
        fault::classify(status, &headers, &body)
    }
}

/// A stream under way.
struct Decoder(RefCell<Stream>);

impl Mapper for Decoder {
    fn new(context: Context) -> Decoder {
        Decoder(RefCell::new(Stream::new(context)))
    }

    fn push(&self, frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError> {
        self.0.borrow_mut().push(&frames)
    }

    fn close(&self) -> Result<Mapped, PluginError> {
        self.0.borrow().close()
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: value.into() }
}

/// One request out, one answer back.
fn self_test() -> Result<(), String> {
    let request =
        br#"{"model":"a","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}]}"#;
    let outgoing = request::map(request, "b", false, &Config::default())
        .map_err(|error| format!("a plain request: {error:?}"))?;
    let wanted = r#"{"model":"b","max_tokens":4096,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"text","text":"u"}]}],"stream":false}"#;
    if outgoing.body != wanted.as_bytes() {
        return Err(format!("a request becomes {}", String::from_utf8_lossy(&outgoing.body)));
    }
    let context = Context {
        request_id: "r".into(),
        model: "a".into(),
        created_s: 1,
        surface: surface::OPENAI_CHAT,
        endpoint: endpoint::CHAT,
        streaming: false,
        carry: outgoing.carry.to_bytes(),
    };
    let answer = br#"{"id":"m","type":"message","content":[{"type":"text","text":"t"}],"stop_reason":"end_turn","usage":{"input_tokens":2,"output_tokens":3}}"#;
    let mapped = answer::map(&context, answer).map_err(|error| format!("a plain answer: {error:?}"))?;
    let wire = String::from_utf8_lossy(&mapped.wire);
    let is_good = wire.contains(r#""content":"t""#) && wire.contains(r#""total_tokens":5"#);
    if is_good { Ok(()) } else { Err(format!("an answer becomes {wire}")) }
}

sluice_plugin::export_adapter!(Anthropic);
