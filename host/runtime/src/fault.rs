//! How a call of a plugin goes wrong: the classes that are counted and shown.

use std::fmt;

use wasmtime::Trap;

use crate::bounds::REFUSAL_BYTES_MAX;
use crate::state::State;

/// Defines the classes once: the enum, the list of all, and the names that operators see.
macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)+) => {
        /// Classes of faults; each has a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $fault,)+
        }

        impl Fault {
            /// All classes, in order of their discriminants.
            pub const ALL: &'static [Fault] = &[$(Fault::$fault,)+];

            /// The name in `/admin/v1/plugins` and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)+
                }
            }
        }
    };
}

faults! {
    /// Over its CPU time.
    Cpu = "cpu",
    /// Recursed too deep.
    Stack = "stack",
    /// Asked for more memory than it may have.
    Memory = "memory",
    /// Handed over more than the host takes.
    TooLarge = "too_large",
    /// Gave up by itself: a panic or an abort.
    Panic = "panic",
    /// Any other trap.
    Trap = "trap",
    /// Said itself that it failed.
    Error = "error",
    /// Ranked somebody who is no candidate.
    RankedStranger = "ranked_stranger",
    /// Ranked somebody twice.
    RankedTwice = "ranked_twice",
    /// Ranked nobody.
    RankedNobody = "ranked_nobody",
    /// Decided about a job that was not shown.
    BidStranger = "bid_stranger",
    /// Decided about a job twice.
    BidTwice = "bid_twice",
    /// Bid under a job's floor, over its ceiling or its credit.
    BidBounds = "bid_bounds",
    /// A header that is malformed, not declared or the host's.
    Header = "header",
    /// A path that may lead elsewhere.
    Path = "path",
    /// A call on no declared route.
    Route = "route",
    /// A slot that is not declared.
    Slot = "slot",
    /// An edit that is malformed or does not fit the body.
    Edit = "edit",
    /// Something that this version of the host does not do.
    NotBuilt = "not_built",
}

/// What a plugin says when it does not do as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    InvalidConfig(String),
    InvalidRequest(String),
    Unsupported(String),
    BadUpstream(String),
    Internal(String),
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The plugin refused; not always its fault.
    Refused(Refused),
    /// The plugin misbehaved; counted. The text is for the operator.
    Fault(Fault, String),
}

impl Refused {
    /// Cuts what a guest made too long.
    pub(crate) fn shorten(&mut self) {
        let (Refused::InvalidConfig(text)
        | Refused::InvalidRequest(text)
        | Refused::Unsupported(text)
        | Refused::BadUpstream(text)
        | Refused::Internal(text)) = self;
        shorten(text);
    }
}

/// Cuts what a guest made too long.
pub(crate) fn shorten(text: &mut String) {
    text.truncate(text.floor_char_boundary(REFUSAL_BYTES_MAX));
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::InvalidConfig(text) => write!(f, "invalid configuration: {text}"),
            Refused::InvalidRequest(text) | Refused::Unsupported(text) => f.write_str(text),
            Refused::BadUpstream(text) => write!(f, "the vendor's answer makes no sense: {text}"),
            Refused::Internal(text) => write!(f, "internal error: {text}"),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused(refused) => refused.fmt(f),
            CallError::Fault(fault, text) => write!(f, "{}: {text}", fault.name()),
        }
    }
}

impl std::error::Error for CallError {}

impl Fault {
    /// Whether it ends the instance in the middle of a call.
    pub fn is_trap(self) -> bool {
        match self {
            Fault::Cpu | Fault::Stack | Fault::Memory | Fault::Panic | Fault::Trap => true,
            Fault::TooLarge
            | Fault::Error
            | Fault::RankedStranger
            | Fault::RankedTwice
            | Fault::RankedNobody
            | Fault::BidStranger
            | Fault::BidTwice
            | Fault::BidBounds
            | Fault::Header
            | Fault::Path
            | Fault::Route
            | Fault::Slot
            | Fault::Edit
            | Fault::NotBuilt => false,
        }
    }

    /// Which class an error of a call belongs to, given what the store saw.
    pub(crate) fn of(error: &wasmtime::Error, state: &State) -> Fault {
        if state.memory_denied() {
            return Fault::Memory;
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Fault::Cpu,
            Some(Trap::StackOverflow) => Fault::Stack,
            Some(Trap::UnreachableCodeReached) => Fault::Panic,
            Some(_) => Fault::Trap,
            // wasmtime's type for this is private; a test of a guest that hands over too much
            // keeps the text.
            None if format!("{error:#}").contains("fuel allocated for hostcalls") => Fault::TooLarge,
            None => Fault::Trap,
        }
    }
}
