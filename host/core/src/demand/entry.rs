//! What a message, an item or a part is, by all of its members.

use super::names::EntryType;
use super::tally::Value;
use super::walk::Place;
use super::words::Said;

/// What is known of a message, an item or a part when all its members were seen.
pub(super) struct Entry {
    place: Place,
    /// The types that it gives itself, by their bits.
    types: u8,
    /// It gives itself no type, or once `null`.
    untyped: bool,
    pub(super) has_id: bool,
    pub(super) role: Surely,
    pub(super) encrypted: Surely,
    /// What its `input` counts for, unless it is a call.
    pub(super) input: u32,
    /// What its `data` counts for, unless it is redacted.
    pub(super) data: u32,
    pub(super) unknown: u32,
}

/// Whether something is there in each occurrence of a member: vendors differ in which they read.
#[derive(Default)]
pub(super) struct Surely {
    there: bool,
    missing: bool,
}

// === impl Entry ===

impl Entry {
    pub(super) fn new(place: Place) -> Entry {
        Entry {
            place,
            types: 0,
            untyped: false,
            has_id: false,
            role: Surely::default(),
            encrypted: Surely::default(),
            input: 0,
            data: 0,
            unknown: 0,
        }
    }

    pub(super) fn note_type(&mut self, said: Said<EntryType>) {
        match said {
            Said::Null => self.untyped = true,
            Said::Word(kind) => self.types |= kind.bit(),
            Said::Other => self.types |= EntryType::Unknown.bit(),
        }
    }

    /// How many things a member's value is, if it is no text.
    pub(super) fn things(&self, value: Value) -> u32 {
        match value {
            Value::List { .. } => value.things(),
            // The whole is counted once already, but not what lists in it have.
            Value::Null | Value::Truth(_) | Value::Number | Value::Text | Value::Object => {
                if self.place == Place::Counted { 0 } else { value.things() }
            }
        }
    }

    fn is_only(&self, kind: EntryType) -> bool {
        self.types == kind.bit() && !self.untyped
    }

    /// How many things other than text it holds or is.
    pub(super) fn opaque(&self) -> u32 {
        let mut count = self.unknown;
        if !self.is_only(EntryType::Call) {
            count = count.saturating_add(self.input);
        }
        if !self.is_only(EntryType::Redacted) {
            count = count.saturating_add(self.data);
        }
        if self.place == Place::Counted {
            return count;
        }
        let foreign = self.types & EntryType::Unknown.bit() != 0;
        count.max(u32::from(foreign || self.is_reference()))
    }

    /// It may stand for something that the vendor has stored.
    fn is_reference(&self) -> bool {
        let reasoning = self.types & EntryType::Reasoning.bit() != 0;
        let untyped = self.untyped || self.types == 0;
        let by_id = self.place == Place::Element && untyped && !self.role.is_sure();
        self.has_id && (by_id || (reasoning && !self.encrypted.is_sure()))
    }
}

impl Surely {
    pub(super) fn note(&mut self, there: bool) {
        self.there |= there;
        self.missing |= !there;
    }

    fn is_sure(&self) -> bool {
        self.there && !self.missing
    }
}
