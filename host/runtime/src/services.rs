//! What the host does for a guest: show the request, take log messages.

use std::sync::Arc;

use wasmtime::component::Resource;

use crate::bindings::InboundHandle;
use crate::bindings::adapter::sluice::plugin::{log, request};
use crate::bounds::LOG_MESSAGE_BYTES_MAX;
use crate::inbound::Inbound;
use crate::state::State;

impl State {
    fn request(&mut self, handle: &Resource<InboundHandle>) -> wasmtime::Result<Arc<dyn Inbound>> {
        self.table.get(handle)?;
        self.inbound.clone().ok_or_else(|| wasmtime::Error::msg("no request is being served"))
    }

    fn closer(&mut self, handle: &Resource<InboundHandle>) -> wasmtime::Result<Arc<dyn Inbound>> {
        self.looked_closer = true;
        self.request(handle)
    }
}

impl request::Host for State {}

impl request::HostInbound for State {
    fn shape(&mut self, handle: Resource<InboundHandle>) -> wasmtime::Result<request::Shape> {
        let shape = self.request(&handle)?.shape();
        Ok(request::Shape {
            surface: shape.surface,
            endpoint: shape.endpoint,
            model: shape.model,
            streaming: shape.streaming,
            features: shape.features,
        })
    }

    fn sizes(&mut self, handle: Resource<InboundHandle>) -> wasmtime::Result<request::Sizes> {
        let sizes = self.closer(&handle)?.sizes();
        Ok(request::Sizes {
            body_len: sizes.body_bytes,
            prompt_estimate: sizes.prompt_tokens_estimate,
            choices: sizes.choices,
        })
    }

    fn identity(&mut self, handle: Resource<InboundHandle>) -> wasmtime::Result<request::Identity> {
        let identity = self.closer(&handle)?.identity();
        Ok(request::Identity { request_id: identity.request_id, received_s: identity.received_s })
    }

    fn header(&mut self, handle: Resource<InboundHandle>, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.closer(&handle)?.header(&name))
    }

    fn field(
        &mut self,
        handle: Resource<InboundHandle>,
        pointer: String,
    ) -> wasmtime::Result<Option<String>> {
        Ok(self.closer(&handle)?.field(&pointer))
    }

    fn body(&mut self, handle: Resource<InboundHandle>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.closer(&handle)?.body())
    }

    fn drop(&mut self, handle: Resource<InboundHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl log::Host for State {
    fn emit(&mut self, level: log::Level, mut message: String) -> wasmtime::Result<()> {
        let Some(left) = self.log_messages_left.checked_sub(1) else {
            self.speaker.counters.log_dropped();
            return Ok(());
        };
        self.log_messages_left = left;
        message.truncate(message.floor_char_boundary(LOG_MESSAGE_BYTES_MAX));
        // Quoted, so that a guest cannot write lines that look like the host's.
        let plugin = self.speaker.id.as_str();
        match level {
            log::Level::Debug => tracing::debug!(plugin, ?message, "plugin"),
            log::Level::Info => tracing::info!(plugin, ?message, "plugin"),
            log::Level::Warn => tracing::warn!(plugin, ?message, "plugin"),
            log::Level::Error => tracing::error!(plugin, ?message, "plugin"),
        }
        Ok(())
    }
}
