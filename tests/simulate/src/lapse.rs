//! What a fault makes the vendor say differently, before it is written.

use crate::fault::Fault;

/// Differences from the answer that is right; by default, none.
#[derive(Default)]
pub(crate) struct Lapse {
    pub(crate) told: Told,
    /// The text has so many words, whatever was asked.
    pub(crate) words: Option<u64>,
    /// The text is one word of so many bytes.
    pub(crate) frame_bytes: Option<usize>,
    /// A stream was asked for and is not made.
    pub(crate) unstreamed: bool,
}

/// What the usage says.
#[derive(Default)]
pub(crate) enum Told {
    #[default]
    Truth,
    Nothing,
    Ones,
}

// === impl Lapse ===

impl From<&Fault> for Lapse {
    fn from(fault: &Fault) -> Lapse {
        let none = Lapse::default();
        match fault {
            Fault::NoUsage { .. } => Lapse { told: Told::Nothing, ..none },
            Fault::WrongUsage { .. } => Lapse { told: Told::Ones, ..none },
            Fault::IgnoreLimit { words, .. } => Lapse { words: Some((*words).into()), ..none },
            Fault::HugeFrame { bytes, .. } => Lapse { frame_bytes: Some(*bytes as usize), ..none },
            Fault::Unstreamed { .. } => Lapse { unstreamed: true, ..none },
            Fault::Status { .. }
            | Fault::Delay { .. }
            | Fault::Wait { .. }
            | Fault::Hang { .. }
            | Fault::Reset { .. }
            | Fault::Split { .. }
            | Fault::MalformedJson { .. }
            | Fault::MalformedSse { .. }
            | Fault::ErrorIn200 { .. }
            | Fault::Empty { .. }
            | Fault::Cut { .. }
            | Fault::Drip { .. } => none,
        }
    }
}
