//! Who asks: what limits, rows and refusals know of it.

use std::sync::Arc;

use http::HeaderMap;

use crate::rates::Limited;
use crate::refusal::Refusal;

/// Names the run that a call belongs to.
const RUN_HEADER: &str = "x-sluice-run";

/// Characters of a run's name at most: accounts are kept by it.
const RUN_CHARS_MAX: usize = 128;

/// A caller of completions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// The key's id; empty where no key is required.
    pub(crate) key: Arc<str>,
    /// The key's team; empty without one.
    pub(crate) team: Arc<str>,
    /// The run, as the caller names it.
    pub(crate) run: Option<Arc<str>>,
}

impl Caller {
    /// What limits it.
    pub(crate) fn limited(&self) -> Limited {
        Limited::new()
    }

    /// # Errors
    ///
    /// [`Refusal::Header`] where the run's name cannot be used.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Caller, Refusal> {
        let run = match headers.get(RUN_HEADER) {
            None => None,
            Some(value) => {
                let is_visible = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
                let run = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= RUN_CHARS_MAX);
                let wanted = "wanted 1 to 128 visible ASCII characters";
                Some(run.filter(is_visible).ok_or(Refusal::Header { name: RUN_HEADER, wanted })?.into())
            }
        };
        Ok(Caller { run, ..Caller::default() })
    }
}
