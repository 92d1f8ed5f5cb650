//! What goes wrong in a call, and what is wrong in a plan.

use std::hint::black_box;
use std::mem;

use sluice_plugin::adapter::{
    BodyPlan, CallPlan, Credential, Decision, Edit, Framing, Header, Mapped, Phase, Placed, PluginError,
    ResponsePlan, Slotted,
};

type Never = Result<Decision, PluginError>;

pub fn spin() -> Never {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Deep, but with frames that need nothing of the guest's own stack: what runs out is the host's.
pub fn recurse() -> Never {
    #[inline(never)]
    fn deeper(level: u64) -> u64 {
        match level {
            u64::MAX => 1,
            level => deeper(level + 1) ^ deeper(level + 2).rotate_left(7),
        }
    }
    failed(deeper(black_box(0)))
}

/// Deep, with large frames: what runs out is the guest's stack in its linear memory.
pub fn overflow() -> Never {
    #[inline(never)]
    fn deeper(level: u64) -> u64 {
        let frame = black_box([level; 128]);
        match level {
            u64::MAX => frame[0],
            level => deeper(level + 1) ^ frame[usize::from(level as u8 & 127)],
        }
    }
    failed(deeper(black_box(0)))
}

pub fn hoard() -> Never {
    loop {
        // Reserved, not written: that would be a matter of time.
        mem::forget(black_box(Vec::<u8>::with_capacity(1024 * 1024)));
    }
}

/// Over 100 MB of answer, made of one buffer of 1 MiB that stands in it 128 times.
pub fn huge() -> Vec<Mapped> {
    const BYTES: usize = 1024 * 1024;
    let buffer: *mut u8 = mem::ManuallyDrop::new(vec![b'x'; BYTES]).as_mut_ptr();
    // SAFETY: none. The aliases are handed over, and the host is to refuse before any is freed.
    let alias = || unsafe { Vec::from_raw_parts(buffer, BYTES, BYTES) };
    (0..128)
        .map(|_| Mapped { wire: alias(), phase: Phase::Content, usage: None, finish: None, fault: None })
        .collect()
}

fn failed(result: u64) -> Never {
    Err(PluginError::Internal(format!("came to an end with {result}")))
}

/// A call to where the vendor is, with the secret where the vendor wants it.
pub fn honest_plan() -> CallPlan {
    CallPlan {
        method: "POST".into(),
        path: "/chat/completions".into(),
        query: Vec::new(),
        headers: vec![header("content-type", "application/json"), header("x-note", "from a guest")],
        auth: slot("api-key"),
        body: BodyPlan::Passthrough,
        limit_at: None,
        framing: Framing::Whole,
        response: ResponsePlan::SameWire,
        carry: Vec::new(),
    }
}

/// What is wrong with an otherwise honest plan.
#[derive(Clone, Copy)]
pub enum Breach {
    HeaderCr,
    HeaderUndeclared,
    HeaderHost,
    HeaderAuthorization,
    PathDots,
    PathEncoded,
    PathUrl,
    Route,
    Slot,
    SlotInHost,
    EditBad,
    EditMisfit,
    Mapped,
    Scheme,
}

impl Breach {
    pub fn named(name: &str) -> Option<Breach> {
        Some(match name {
            "header-cr" => Breach::HeaderCr,
            "header-undeclared" => Breach::HeaderUndeclared,
            "header-host" => Breach::HeaderHost,
            "header-authorization" => Breach::HeaderAuthorization,
            "path-dots" => Breach::PathDots,
            "path-encoded" => Breach::PathEncoded,
            "path-url" => Breach::PathUrl,
            "route" => Breach::Route,
            "slot" => Breach::Slot,
            "slot-in-host" => Breach::SlotInHost,
            "edit-bad" => Breach::EditBad,
            "edit-misfit" => Breach::EditMisfit,
            "mapped" => Breach::Mapped,
            "scheme" => Breach::Scheme,
            _ => return None,
        })
    }

    pub fn plan(self) -> CallPlan {
        let mut plan = honest_plan();
        match self {
            Breach::HeaderCr => plan.headers.push(header("x-note", "a\r\nx-smuggled: 1")),
            Breach::HeaderUndeclared => plan.headers.push(header("x-undeclared", "1")),
            Breach::HeaderHost => plan.headers.push(header("host", "evil.example")),
            Breach::HeaderAuthorization => plan.headers.push(header("authorization", "Bearer mine")),
            Breach::PathDots => plan.path = "/models/../chat".into(),
            Breach::PathEncoded => plan.path = "/models/%2e%2e/chat".into(),
            Breach::PathUrl => plan.path = "http://evil.example/chat/completions".into(),
            Breach::Route => plan.path = "/files".into(),
            Breach::Slot => plan.auth = slot("master-key"),
            Breach::SlotInHost => plan.auth = slotted("host", "api-key"),
            Breach::EditBad => plan.body = set("/temperature", "{"),
            Breach::EditMisfit => plan.body = set("/nowhere/at/all", "1"),
            Breach::Mapped => plan.response = ResponsePlan::Mapped,
            Breach::Scheme => plan.auth = Credential::Scheme,
        }
        plan
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.into(), value: value.into() }
}

fn slot(slot: &str) -> Credential {
    slotted("authorization", slot)
}

fn slotted(name: &str, slot: &str) -> Credential {
    Credential::Header(Slotted {
        name: name.into(),
        prefix: "Bearer ".into(),
        slot: slot.into(),
        suffix: String::new(),
    })
}

fn set(at: &str, json: &str) -> BodyPlan {
    BodyPlan::Edits(vec![Edit::Set(Placed { at: at.into(), json: json.into() })])
}
