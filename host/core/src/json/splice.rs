//! Applies edits to a JSON body; all bytes that no edit names come out as they went in.
//!
//! An object that an edit goes into is taken apart into its members, each with the whitespace on
//! its sides; all others stay one slice of the text. Writing it out again is a row of copies.

use std::borrow::Cow;

use super::index::{Index, ScanError};
use super::pointer::{Duplicate, Pointer};
use super::{Raw, quoted};

/// Most edits of one body: 64.
///
/// More than the members of a request that two dialects of one wire disagree on. It also bounds how
/// deep moved objects can come to lie in each other, hence the stack.
pub const EDITS_MAX: usize = 64;

/// One change to a body. The parent of what it names must be an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Writes `value`: in place of the one that is there, whose key and place stay, or as the last
    /// member.
    Set {
        /// The member to write.
        at: Pointer,
        /// What to write.
        value: Raw,
    },
    /// Writes `value` as the last member, unless there is one of that name, be it `null`.
    Insert {
        /// The member to write.
        at: Pointer,
        /// What to write.
        value: Raw,
    },
    /// Takes a member away, with its key, the whitespace around it and one comma. Nothing happens
    /// if there is none, or no parent.
    Remove {
        /// The member to take away.
        at: Pointer,
    },
    /// Takes a member away and writes its value, byte for byte, as the last member under another
    /// name. If that name is there already (be it `null`), its value stays and the old one is
    /// dropped: who gives both means the newer name. Nothing happens if there is nothing to move,
    /// or if both names are the same.
    Move {
        /// The member to take away.
        from: Pointer,
        /// Where its value goes. Not below `from`: that parent is missing once it is taken.
        to: Pointer,
    },
}

/// Why edits do not fit a body. No part of the edits is applied then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// A key on the path of an edit is given twice.
    #[error(transparent)]
    Duplicate(#[from] Duplicate),
    /// The object that a value should go into is not there.
    #[error("`{at}` is missing, so nothing can be put into it")]
    MissingParent {
        /// The object.
        at: Pointer,
    },
    /// What an edit goes through or into is there, but no object: an array, `null` or so.
    #[error("`{at}` is not an object")]
    NotAnObject {
        /// The value.
        at: Pointer,
    },
    /// An object that an edit goes into has more members than [`MEMBERS_MAX`](super::MEMBERS_MAX).
    #[error("`{at}` has too many members to be edited")]
    TooManyMembers {
        /// The object.
        at: Pointer,
    },
    /// An edit names the whole body, not a member.
    #[error("an edit names the whole body")]
    WholeText,
    /// More than [`EDITS_MAX`].
    #[error("more than {EDITS_MAX} edits")]
    TooManyEdits,
}

/// Applies `edits` in order, each to the result of the one before, to the `text` that `index` was
/// made of.
///
/// The result is longer than `text` by no more than the values and keys of the edits (a key grows
/// when it needs escapes): whoever bounds those has bounded it. Handed another text than was
/// scanned, this panics or writes nonsense.
///
/// # Errors
///
/// [`SpliceError`]; the first edit that does not fit is named by its pointer.
pub fn splice(text: &[u8], index: &Index, edits: &[Edit]) -> Result<Vec<u8>, SpliceError> {
    if edits.len() > EDITS_MAX {
        return Err(SpliceError::TooManyEdits);
    }
    let mut body = Object::new(text, index);
    let mut growth = 0;
    for edit in edits {
        growth += edit.growth();
        body.apply(edit)?;
    }
    let mut out = Vec::with_capacity(text.len() + growth);
    body.write(&mut out);
    Ok(out)
}

// === impl Edit ===

impl Edit {
    /// Bytes that a body grows by; at most, if no key needs escapes.
    fn growth(&self) -> usize {
        const PUNCTUATION: usize = r#","":"#.len();
        match self {
            Edit::Set { at, value } | Edit::Insert { at, value } => {
                value.as_str().len() + at.as_str().len() + PUNCTUATION
            }
            Edit::Move { to, .. } => to.as_str().len() + PUNCTUATION,
            Edit::Remove { .. } => 0,
        }
    }
}

/// An object taken apart. Its text is `open`, the members with commas between, `close`.
struct Object<'t> {
    /// From the start of the text to the brace.
    open: &'t [u8],
    members: Vec<Member<'t>>,
    /// From behind the last value to the end of the text.
    close: &'t [u8],
}

/// One member. Its text is `lead`, `value`, `tail`.
struct Member<'t> {
    /// What the key reads as.
    name: Cow<'t, [u8]>,
    /// From behind the comma or brace to the value: key and colon.
    lead: Cow<'t, [u8]>,
    value: Value<'t>,
    /// Whitespace before the comma.
    tail: &'t [u8],
}

enum Value<'t> {
    Raw(&'t [u8]),
    /// An edit went into it.
    Object(Box<Object<'t>>),
}

/// What becomes of a value that is there already.
#[derive(Clone, Copy)]
enum Present {
    Replaced,
    Kept,
}

// === impl Object ===

impl<'t> Object<'t> {
    fn new(text: &'t [u8], index: &Index) -> Object<'t> {
        let brace = text.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
        let mut start = brace; // of the member's text
        let mut end = brace; // of its value
        let spans = index.members();
        let mut members = Vec::with_capacity(spans.len() + 1);
        for (place, span) in spans.iter().enumerate() {
            end = span.value.end;
            let next_key = spans.get(place + 1).map_or(end, |next| next.key.start);
            let comma = text[end..next_key].iter().position(|byte| *byte == b',').map_or(end, |at| end + at);
            members.push(Member {
                name: match &span.unescaped {
                    Some(name) => Cow::Owned(name.to_vec()),
                    None => Cow::Borrowed(&text[span.key.start + 1..span.key.end - 1]),
                },
                lead: Cow::Borrowed(&text[start..span.value.start]),
                value: Value::Raw(&text[span.value.clone()]),
                tail: &text[end..comma],
            });
            start = comma + 1;
        }
        Object { open: &text[..brace], members, close: &text[end..] }
    }

    fn apply(&mut self, edit: &'t Edit) -> Result<(), SpliceError> {
        match edit {
            Edit::Set { at, value } => self.put(at, Value::Raw(value.as_str().as_bytes()), Present::Replaced),
            Edit::Insert { at, value } => self.put(at, Value::Raw(value.as_str().as_bytes()), Present::Kept),
            Edit::Remove { at } => self.take(at).map(drop),
            Edit::Move { from, to } if from == to && !to.is_whole() => Ok(()),
            Edit::Move { from, to } => match self.take(from)? {
                Some(value) => self.put(to, value, Present::Kept),
                None => Ok(()),
            },
        }
    }

    fn put(&mut self, at: &'t Pointer, value: Value<'t>, present: Present) -> Result<(), SpliceError> {
        let place = self.locate(at)?;
        match (place.found, present) {
            (Some(found), Present::Replaced) => place.object.members[found].value = value,
            (Some(_), Present::Kept) => (),
            (None, _) => {
                let lead = Cow::Owned((quoted(&place.key) + ":").into_bytes());
                let name = match place.key {
                    Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
                    Cow::Owned(key) => Cow::Owned(key.into_bytes()),
                };
                place.object.members.push(Member { name, lead, value, tail: &[] });
            }
        }
        Ok(())
    }

    fn take(&mut self, at: &'t Pointer) -> Result<Option<Value<'t>>, SpliceError> {
        match self.locate(at) {
            Ok(place) => Ok(place.found.map(|found| place.object.members.remove(found).value)),
            Err(SpliceError::MissingParent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes down to the object that `at` names a member of, and takes apart what it goes through.
    fn locate(&mut self, at: &'t Pointer) -> Result<Place<'_, 't>, SpliceError> {
        let mut keys = at.keys();
        let mut key = keys.next().ok_or(SpliceError::WholeText)?;
        let mut object = self;
        let mut depth = 1; // of `key`
        for below in keys {
            let Some(found) = object.find(&key, at, depth)? else {
                return Err(SpliceError::MissingParent { at: at.upto(depth) });
            };
            object = object.members[found].value.open(at, depth)?;
            (key, depth) = (below, depth + 1);
        }
        let found = object.find(&key, at, depth)?;
        Ok(Place { object, key, found })
    }

    /// Finds the member that the first `depth` keys of `at` lead to; `key` is the last of them.
    fn find(&self, key: &str, at: &Pointer, depth: usize) -> Result<Option<usize>, Duplicate> {
        let same = |(_, member): &(usize, &Member<'_>)| *member.name == *key.as_bytes();
        let mut same = self.members.iter().enumerate().filter(same).map(|(found, _)| found);
        match (same.next(), same.next()) {
            (found, None) => Ok(found),
            (_, Some(_)) => Err(Duplicate { at: at.upto(depth) }),
        }
    }

    /// Recurses by what edits went into, which their number and depth bound.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.open);
        for (place, member) in self.members.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&member.lead);
            match &member.value {
                Value::Raw(text) => out.extend_from_slice(text),
                Value::Object(object) => object.write(out),
            }
            out.extend_from_slice(member.tail);
        }
        out.extend_from_slice(self.close);
    }
}

/// Where an edit acts.
struct Place<'o, 't> {
    object: &'o mut Object<'t>,
    key: Cow<'t, str>,
    /// Which member has that key.
    found: Option<usize>,
}

impl<'t> Value<'t> {
    /// The object that this is, taken apart. The first `depth` keys of `at` lead to it.
    fn open(&mut self, at: &Pointer, depth: usize) -> Result<&mut Object<'t>, SpliceError> {
        let not_an_object = || SpliceError::NotAnObject { at: at.upto(depth) };
        if let Value::Raw(text) = self {
            if !text.starts_with(b"{") {
                return Err(not_an_object()); // without a scan to see what else it is
            }
            let index = Index::scan(text).map_err(|error| match error {
                ScanError::TooManyMembers => SpliceError::TooManyMembers { at: at.upto(depth) },
                ScanError::NotUtf8 { .. } | ScanError::NotJson { .. } | ScanError::NotAnObject => {
                    not_an_object()
                }
            })?;
            *self = Value::Object(Box::new(Object::new(text, &index)));
        }
        match self {
            Value::Object(object) => Ok(object),
            Value::Raw(_) => Err(not_an_object()),
        }
    }
}
