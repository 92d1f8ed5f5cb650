//! Adapter for every vendor that speaks OpenAI's chat completions.
//!
//! The body stays in the host: the plan is a list of edits, the answer passes as it is.
//! A plan reads nothing but the request's shape, so that the host may reuse it.

mod config;

use config::Config;
use sluice_plugin::adapter::{
    Adapter, BodyPlan, CallPlan, Credential, Decision, Edit, Framing, Header, Inbound, Manifest, Placed,
    PluginError, ResponsePlan, Route, SameWire, SecretSlot, Setup, Slotted, manifest,
};
use sluice_plugin::codes::{endpoint, surface};

/// Where the vendor's chat completions are, under the operator's base URL.
const CHAT_PATH: &str = "/chat/completions";

struct OpenAi {
    config: Config,
}

impl Adapter for OpenAi {
    type Mapper = SameWire;

    fn describe() -> Manifest {
        Manifest {
            surfaces: vec![surface::OPENAI_CHAT],
            secrets: vec![SecretSlot {
                name: "api-key".into(),
                required: false,
                doc: "Sent as a bearer token; leave it out where the vendor wants none.".into(),
            }],
            routes: vec![Route { endpoint: endpoint::CHAT, method: "POST".into(), path: CHAT_PATH.into() }],
            headers: vec!["accept".into(), "content-type".into()],
            config_schema: include_str!("schema.json").into(),
            ..manifest(
                "openai",
                env!("CARGO_PKG_VERSION"),
                "Any vendor that speaks OpenAI's chat completions.",
            )
        }
    }

    fn configure(setup: Setup) -> Result<OpenAi, PluginError> {
        Ok(OpenAi { config: Config::parse(&setup.config_json)? })
    }

    fn self_test() -> Result<(), String> {
        config::self_test()
    }

    fn plan(&self, request: &Inbound, target_model: &str) -> Result<Decision, PluginError> {
        let shape = request.shape();
        if shape.endpoint != endpoint::CHAT {
            return Err(PluginError::Unsupported("this adapter serves chat completions".into()));
        }
        let accept = if shape.streaming { "text/event-stream" } else { "application/json" };
        Ok(Decision::Send(CallPlan {
            method: "POST".into(),
            path: CHAT_PATH.into(),
            query: Vec::new(),
            headers: vec![header("content-type", "application/json"), header("accept", accept)],
            auth: Credential::Header(Slotted {
                name: "authorization".into(),
                prefix: "Bearer ".into(),
                slot: "api-key".into(),
                suffix: String::new(),
            }),
            body: self.body(&shape.model, target_model),
            limit_at: Some(self.config.limit_pointer()),
            framing: if shape.streaming { Framing::Sse } else { Framing::Whole },
            response: ResponsePlan::SameWire,
            carry: Vec::new(),
        }))
    }
}

impl OpenAi {
    fn body(&self, asked_model: &str, target_model: &str) -> BodyPlan {
        let mut edits = Vec::new();
        if asked_model != target_model {
            let json = serde_json::Value::from(target_model).to_string();
            edits.push(Edit::Set(Placed { at: "/model".into(), json }));
        }
        edits.extend(self.config.edits());
        if edits.is_empty() { BodyPlan::Passthrough } else { BodyPlan::Edits(edits) }
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: value.into() }
}

sluice_plugin::export_adapter!(OpenAi);
