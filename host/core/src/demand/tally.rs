//! What a walk has counted, and how values count.

/// What has been counted. All numbers saturate.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages, items and parts.
    pub(super) entries: u64,
    pub(super) tools: u64,
    /// Members and elements.
    pub(super) values: u64,
    pub(super) opaque: u32,
    pub(super) server_tools: u32,
    /// The largest number of answers that is asked for.
    pub(super) answers: u32,
    /// Texts that are each continued.
    pub(super) prompts: u32,
    pub(super) other_output: bool,
    pub(super) other_rates: bool,
}

/// What kind of value was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Truth(bool),
    Number,
    Text,
    List {
        elements: u32,
        /// Those that are no numbers.
        texts: u32,
    },
    Object,
}

// === impl Tally ===

impl Tally {
    pub(super) fn add_opaque(&mut self, count: u32) {
        self.opaque = self.opaque.saturating_add(count);
    }

    pub(super) fn add_server_tools(&mut self, count: u32) {
        self.server_tools = self.server_tools.saturating_add(count);
    }
}

// === impl Value ===

impl Value {
    /// How many things a value may be that is not known: a list is as many as it has elements.
    pub(super) fn things(self) -> u32 {
        match self {
            Value::Null | Value::Truth(_) => 0,
            Value::Number | Value::Text | Value::Object => 1,
            Value::List { elements, .. } => elements.max(1),
        }
    }

    /// How many things a switch turns on.
    pub(super) fn switched_on(self) -> u32 {
        match self {
            Value::Truth(on) => on.into(),
            Value::Null | Value::Number | Value::Text | Value::Object | Value::List { .. } => self.things(),
        }
    }
}
