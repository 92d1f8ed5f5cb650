//! The numbers of the contract by name; the table is in `wit/README.md`.

/// Wires that a client may speak.
pub mod surface {
    /// `POST /v1/chat/completions`; also the dialect that others are mapped to.
    pub const OPENAI_CHAT: u16 = 1;
    /// `POST /v1/completions`.
    pub const OPENAI_COMPLETIONS: u16 = 2;
    /// `POST /v1/embeddings`.
    pub const OPENAI_EMBEDDINGS: u16 = 3;
    /// `POST /v1/responses`.
    pub const OPENAI_RESPONSES: u16 = 4;
    /// `POST /v1/messages`.
    pub const ANTHROPIC_MESSAGES: u16 = 5;
    /// `POST /v1/messages/count_tokens`.
    pub const ANTHROPIC_COUNT_TOKENS: u16 = 6;
}

/// What is asked of a vendor, whatever the wire.
pub mod endpoint {
    /// A chat completion.
    pub const CHAT: u16 = 1;
    /// A completion of plain text.
    pub const COMPLETION: u16 = 2;
    /// Embeddings.
    pub const EMBEDDING: u16 = 3;
    /// A count of tokens.
    pub const COUNT_TOKENS: u16 = 4;
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
