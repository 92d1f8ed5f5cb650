//! What an adapter may ask of the client's request, which stays with the host.

/// The key under which a plan may be reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub surface: u16,
    pub endpoint: u16,
    /// The model the client asked for.
    pub model: String,
    pub streaming: bool,
    /// Bits of `sluice_core::codes::feature`.
    pub features: u64,
}

/// Quantities of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub body_bytes: u32,
    pub prompt_tokens_estimate: u32,
    pub choices: u16,
}

/// Who and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub request_id: String,
    pub received_s: u64,
}

/// One request, as far as an adapter may see it.
pub trait Inbound: Send + Sync {
    fn shape(&self) -> Shape;
    fn sizes(&self) -> Sizes;
    fn identity(&self) -> Identity;
    /// Only headers that the host lets through: never credentials or cookies.
    fn header(&self, name: &str) -> Option<String>;
    /// Raw JSON at an RFC 6901 pointer; the implementation remembers a duplicate it met.
    fn field(&self, pointer: &str) -> Option<String>;
    fn body(&self) -> Vec<u8>;
}
