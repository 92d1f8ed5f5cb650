//! What the host does for a guest: show the request or the jobs, take log messages.

use std::sync::Arc;

use wasmtime::component::Resource;

use crate::bindings::InboundHandle;
use crate::bindings::adapter::sluice::plugin::{log, request};
use crate::bindings::bid::sluice::plugin::job_text;
use crate::bounds::{LOG_MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::inbound::Inbound;
use crate::state::{State, Texts};

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

impl job_text::Host for State {
    fn read(&mut self, job: u32, max_bytes: u32) -> wasmtime::Result<String> {
        Ok(self.texts.read(job, max_bytes))
    }
}

impl Texts {
    fn read(&mut self, job: u32, max_bytes: u32) -> String {
        let text = usize::try_from(job).ok().and_then(|job| self.by_job.get(job));
        let text = text.map_or("", |text| text);
        let left = TEXT_BYTES_MAX.saturating_sub(self.bytes_read);
        let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX).min(left);
        let read = text[..text.floor_char_boundary(bytes)].to_owned();
        self.bytes_read += read.len();
        read
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character_and_strangers_have_none() {
        let mut texts = Texts { by_job: vec!["".into(), "aä€".into()], bytes_read: 0 };
        let read: Vec<String> = (0..=7).map(|bytes| texts.read(1, bytes)).collect();
        assert_eq!(read, ["", "a", "a", "aä", "aä", "aä", "aä€", "aä€"]);
        assert_eq!(texts.read(0, 10) + &texts.read(2, 10) + &texts.read(u32::MAX, u32::MAX), "");
        assert_eq!(texts.bytes_read, 1 + 1 + 3 + 3 + 3 + 6 + 6);
    }

    #[test]
    fn what_one_call_reads_has_a_bound() {
        let long = "x".repeat(TEXT_BYTES_MAX / 2 + 1);
        let mut texts = Texts { by_job: vec![long.into()], bytes_read: 0 };
        let read = [(); 3].map(|()| texts.read(0, u32::MAX).len());
        assert_eq!(read, [TEXT_BYTES_MAX / 2 + 1, TEXT_BYTES_MAX / 2 - 1, 0]);
    }
}
