//! What an adapter may ask the host to send, and the check that it asked no more.
//!
//! A [`CallPlan`] can only be made by [`CallPlan::check`]: to hold one is to know that its
//! method and path follow a declared route, that its headers are declared and well-formed,
//! and that its secret is a declared slot.

mod route;

use std::collections::BTreeMap;

use crate::json::{Edit, Pointer};
pub use route::{PathFault, Route, RouteError};

/// Headers of one plan at most; vendors want a handful.
pub const HEADERS_MAX: usize = 32;

/// Query parameters of one plan at most.
pub const QUERY_MAX: usize = 32;

/// Bytes of one header value or query parameter at most.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;

/// Headers that are the host's alone: it frames messages, fills in credentials and says who it is.
const HOST_HEADERS: [&str; 17] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

/// Headers that not even a credential may be put into.
const FRAMING_HEADERS: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a manifest declares about calls.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// What may be sent.
    pub routes: Vec<Route>,
    /// Lower-case names of the headers that may be set.
    pub headers: Vec<String>,
    /// Slots by name, and whether a value is required.
    pub slots: BTreeMap<String, bool>,
}

/// Where the host writes a secret: `prefix`, the slot's value, `suffix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slotted {
    /// Header or query parameter.
    pub name: String,
    /// Before the secret.
    pub prefix: String,
    /// The slot's name.
    pub slot: String,
    /// After the secret.
    pub suffix: String,
}

/// How a call is authorised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Not at all.
    None,
    /// A header that holds a slot's value.
    Header(Slotted),
    /// A query parameter that holds a slot's value.
    Query(Slotted),
    /// The operator's configured signer.
    Scheme,
}

/// What becomes of the client's body.
#[derive(Clone, Debug, PartialEq)]
pub enum BodyPlan {
    /// No body is sent.
    None,
    /// The client's bytes.
    Passthrough,
    /// The client's bytes with these changes.
    Edits(Vec<Edit>),
    /// The adapter's own bytes.
    Replace(Vec<u8>),
}

/// How the vendor's answer is cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Not at all.
    Whole,
    /// Server-sent events.
    Sse,
    /// A JSON value per line.
    JsonLines,
    /// AWS's binary event stream.
    AwsEventStream,
}

/// Who makes the client's answer out of the vendor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponsePlan {
    /// Nobody: the vendor speaks the client's wire.
    SameWire,
    /// The adapter.
    Mapped,
}

/// A plan as the adapter wrote it; nothing in it is to be trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// HTTP method.
    pub method: String,
    /// Under the operator's base URL.
    pub path: String,
    /// Unescaped pairs.
    pub query: Vec<(String, String)>,
    /// Name and value.
    pub headers: Vec<(String, String)>,
    /// Where the secret goes.
    pub auth: Credential,
    /// What becomes of the body.
    pub body: BodyPlan,
    /// Where the host writes the output limit.
    pub limit_at: Option<Pointer>,
    /// How the answer is framed.
    pub framing: Framing,
    /// Who maps it.
    pub response: ResponsePlan,
    /// The adapter's own, handed back to it.
    pub carry: Vec<u8>,
}

/// A plan that keeps to what its manifest declares.
#[derive(Clone, Debug, PartialEq)]
pub struct CallPlan(Proposal);

/// How a plan breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanBreach {
    /// The path could lead elsewhere than it says.
    #[error("path {path:?} {fault}")]
    Path {
        /// As the adapter wrote it.
        path: String,
        /// What is wrong.
        fault: PathFault,
    },
    /// No declared route has this method and path.
    #[error("{method} {path:?} is on no declared route")]
    Route {
        /// HTTP method.
        method: String,
        /// Under the base URL.
        path: String,
    },
    /// A header that the manifest does not declare.
    #[error("header {0:?} is not declared")]
    HeaderUndeclared(String),
    /// A header's value or name would not survive on the wire as it is.
    #[error("header {0:?} is malformed")]
    HeaderMalformed(String),
    /// A header that is the host's alone.
    #[error("header {0:?} is the host's")]
    HeaderReserved(String),
    /// A slot that the manifest does not declare.
    #[error("slot {0:?} is not declared")]
    Slot(String),
    /// More headers or parameters than are taken, or one too long.
    #[error("too many or too long headers or query parameters")]
    TooLarge,
}

impl CallPlan {
    /// Checks a plan for a call of this endpoint against what the manifest declares.
    ///
    /// # Errors
    ///
    /// A [`PlanBreach`]; the plan is not used, and the adapter pays with its attempt.
    pub fn check(proposal: Proposal, endpoint: u16, declared: &Declared) -> Result<CallPlan, PlanBreach> {
        if proposal.headers.len() > HEADERS_MAX || proposal.query.len() > QUERY_MAX {
            return Err(PlanBreach::TooLarge);
        }
        route::check_path(&proposal.path)
            .map_err(|fault| PlanBreach::Path { path: shortened(&proposal.path), fault })?;
        let fits = |route: &Route| route.allows(endpoint, &proposal.method, &proposal.path);
        if !declared.routes.iter().any(fits) {
            let (method, path) = (shortened(&proposal.method), shortened(&proposal.path));
            return Err(PlanBreach::Route { method, path });
        }
        for (name, value) in &proposal.headers {
            check_header(name, value, declared)?;
        }
        if proposal.query.iter().any(|(name, value)| name.len().max(value.len()) > VALUE_BYTES_MAX) {
            return Err(PlanBreach::TooLarge);
        }
        match &proposal.auth {
            Credential::None | Credential::Scheme => {}
            Credential::Header(slotted) => {
                let name = slotted.name.as_str();
                if FRAMING_HEADERS.contains(&name) {
                    return Err(PlanBreach::HeaderReserved(name.into()));
                }
                let well_formed = is_header_name(name)
                    && is_header_value(&slotted.prefix)
                    && is_header_value(&slotted.suffix);
                if !well_formed {
                    return Err(PlanBreach::HeaderMalformed(shortened(name)));
                }
                check_slot(slotted, declared)?;
            }
            Credential::Query(slotted) => check_slot(slotted, declared)?,
        }
        Ok(CallPlan(proposal))
    }
}

impl std::ops::Deref for CallPlan {
    type Target = Proposal;

    fn deref(&self) -> &Proposal {
        &self.0
    }
}

/// Whether a manifest may declare this header at all.
///
/// # Errors
///
/// [`PlanBreach::HeaderReserved`] or [`PlanBreach::HeaderMalformed`].
pub fn check_declared_header(name: &str) -> Result<(), PlanBreach> {
    if !is_header_name(name) {
        return Err(PlanBreach::HeaderMalformed(shortened(name)));
    }
    if HOST_HEADERS.contains(&name) {
        return Err(PlanBreach::HeaderReserved(name.into()));
    }
    Ok(())
}

fn check_header(name: &str, value: &str, declared: &Declared) -> Result<(), PlanBreach> {
    if !is_header_name(name) || !is_header_value(value) {
        return Err(PlanBreach::HeaderMalformed(shortened(name)));
    }
    if HOST_HEADERS.contains(&name) {
        return Err(PlanBreach::HeaderReserved(name.into()));
    }
    if !declared.headers.iter().any(|known| known == name) {
        return Err(PlanBreach::HeaderUndeclared(name.into()));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(PlanBreach::TooLarge);
    }
    Ok(())
}

fn check_slot(slotted: &Slotted, declared: &Declared) -> Result<(), PlanBreach> {
    if slotted.prefix.len().max(slotted.suffix.len()).max(slotted.name.len()) > VALUE_BYTES_MAX {
        return Err(PlanBreach::TooLarge);
    }
    match declared.slots.contains_key(&slotted.slot) {
        true => Ok(()),
        false => Err(PlanBreach::Slot(shortened(&slotted.slot))),
    }
}

/// A token of RFC 9110, lower-case.
fn is_header_name(name: &str) -> bool {
    let is_token =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(is_token)
}

/// Visible ASCII and spaces: no CR, no LF, nothing that another parser reads differently.
fn is_header_value(value: &str) -> bool {
    value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// For messages: what a guest wrote, but not all of it.
fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
