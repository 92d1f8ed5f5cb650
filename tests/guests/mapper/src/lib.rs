//! For the benchmarks: maps a made-up vendor's stream to OpenAI's chunks, as a real adapter would.

mod wire;

use std::cell::RefCell;

use sluice_plugin::adapter::{
    Adapter, BodyPlan, CallPlan, Context, Credential, Decision, Framing, Header, Inbound, Manifest, Mapped,
    Mapper, PluginError, ResponsePlan, Route, SecretSlot, Setup, Slotted,
};
use sluice_plugin::codes::{endpoint, surface};
use wire::Stream;

struct Mapping;

impl Adapter for Mapping {
    type Mapper = Decoder;

    fn describe() -> Manifest {
        Manifest {
            id: "mapper".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            doc: "For benchmarks: maps a made-up vendor's stream.".into(),
            surfaces: vec![surface::OPENAI_CHAT],
            secrets: vec![SecretSlot { name: "api-key".into(), required: false, doc: "Unused.".into() }],
            routes: vec![Route { endpoint: endpoint::CHAT, method: "POST".into(), path: "/generate".into() }],
            headers: vec!["content-type".into()],
            config_schema: String::new(),
            extra: Vec::new(),
        }
    }

    fn configure(_setup: Setup) -> Result<Mapping, PluginError> {
        Ok(Mapping)
    }

    fn self_test() -> Result<(), String> {
        wire::self_test()
    }

    fn plan(&self, request: &Inbound, _target_model: &str) -> Result<Decision, PluginError> {
        let streaming = request.shape().streaming;
        Ok(Decision::Send(CallPlan {
            method: "POST".into(),
            path: "/generate".into(),
            query: Vec::new(),
            headers: vec![Header { name: "content-type".into(), value: "application/json".into() }],
            auth: Credential::Header(Slotted {
                name: "authorization".into(),
                prefix: "Bearer ".into(),
                slot: "api-key".into(),
                suffix: String::new(),
            }),
            body: BodyPlan::Passthrough,
            limit_at: None,
            framing: if streaming { Framing::Sse } else { Framing::Whole },
            response: ResponsePlan::Mapped,
            carry: Vec::new(),
        }))
    }
}

/// A stream under way.
struct Decoder(RefCell<Stream>);

impl Mapper for Decoder {
    fn new(context: Context) -> Decoder {
        let id = format!("chatcmpl-{}", context.request_id);
        Decoder(RefCell::new(Stream::new(id, context.created_s, context.model)))
    }

    fn push(&self, frames: Vec<Vec<u8>>) -> Result<Mapped, PluginError> {
        self.0.borrow_mut().push(&frames)
    }

    fn close(&self) -> Result<Mapped, PluginError> {
        self.0.borrow_mut().close()
    }
}

sluice_plugin::export_adapter!(Mapping);
