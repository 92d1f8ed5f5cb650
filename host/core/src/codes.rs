//! The numbers of the plugin contract by name; the table is in `wit/README.md`.

/// A wire that a client may speak. The codes are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Surface {
    /// OpenAI chat completions; also the dialect that others are mapped to.
    OpenAiChat = 1,
}

/// What is asked of a vendor, whatever the wire. The codes are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Endpoint {
    /// A chat completion.
    Chat = 1,
}

impl Surface {
    /// The number that crosses to plugins.
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl Endpoint {
    /// The number that crosses to plugins.
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// Bits of `features`, `needs` and `offers`.
pub mod feature {
    /// Tools are offered to the model.
    pub const TOOLS: u64 = 1 << 0;
    /// The answer must be JSON or follow a schema.
    pub const STRUCTURED: u64 = 1 << 1;
    /// Several answers are asked for.
    pub const CHOICES: u64 = 1 << 2;
    /// Log probabilities are asked for.
    pub const LOGPROBS: u64 = 1 << 3;
    /// A reasoning effort is asked for.
    pub const REASONING: u64 = 1 << 4;
    /// Usage is asked for at the end of a stream.
    pub const STREAM_USAGE: u64 = 1 << 5;
    /// The client bounded the output.
    pub const OUTPUT_LIMIT: u64 = 1 << 6;
    /// Audio is asked for.
    pub const AUDIO: u64 = 1 << 7;
}
