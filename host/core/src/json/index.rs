//! Says where the members of a JSON object lie in its text.
//!
//! One pass of `serde_json` over a body finds every top-level key and value as a borrowed slice;
//! what is kept are offsets. What lies deeper is looked up in its own slice, when it is asked for.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pointer::{Duplicate, Pointer};

/// Most members of a body, and of an object that an edit goes into: 1,024.
///
/// Requests have some tens at most. A look-up compares all keys of an object, since a second one of
/// the same name must not go unseen: this keeps it to a few microseconds, and the memory of an
/// index to some tens of KiB and its escaped keys.
pub const MEMBERS_MAX: usize = 1024;

/// Members that an index has room for at once: the usual body has fewer.
const MEMBERS_USUAL: usize = 16;

/// Where the members of one scanned object lie. Holds offsets, and no part of the text but keys
/// that had escapes.
///
/// The methods are handed the text again. Handed another one than was scanned, they panic or
/// answer nonsense.
#[derive(Clone, Debug)]
pub struct Index {
    members: Vec<Member>,
}

/// One member: offsets in bytes.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The key with its quotes.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    /// What the key reads as, if it has escapes. Bytes, since a lone surrogate is no text: its
    /// three bytes are like no key that can be asked for.
    pub(super) unescaped: Option<Box<[u8]>>,
}

/// Why a text is not a body that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Not UTF-8.
    #[error("not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// Of the first byte that is wrong, from 0.
        offset: usize,
    },
    /// Not one JSON value, or bytes after it.
    #[error("not JSON at byte {offset} (line {line}, column {column}): {problem}")]
    NotJson {
        /// Where the parser stopped, give or take one byte; from 0.
        offset: usize,
        /// From 1.
        line: usize,
        /// In bytes, from 1; 0 if the line break itself is at fault.
        column: usize,
        /// What was wrong there, without a word of the text.
        problem: Box<str>,
    },
    /// JSON, but an array, a string or so.
    #[error("not a JSON object")]
    NotAnObject,
    /// More than [`MEMBERS_MAX`].
    #[error("more than {MEMBERS_MAX} members")]
    TooManyMembers,
}

/// Finds the raw value at `pointer` in the `text` that `index` was made of.
///
/// The empty pointer is the whole text. A key of digits without leading zeros is an element if it
/// meets an array. `None` if nothing is there. A value is scanned anew at each level that the
/// pointer goes below the first: to read many members of a large one, scan that by itself.
///
/// # Errors
///
/// [`Duplicate`] if a key on the path is given twice; it names the pointer up to that key.
pub fn get<'t>(text: &'t [u8], index: &Index, pointer: &Pointer) -> Result<Option<&'t [u8]>, Duplicate> {
    let mut keys = pointer.keys();
    let Some(first) = keys.next() else {
        return Ok(Some(text));
    };
    let Some(outermost) = index.member(text, &first)? else {
        return Ok(None);
    };
    let mut value = outermost;
    for (above, key) in keys.enumerate() {
        value = match within(value, &key) {
            Found::One(inner) => inner.get().as_bytes(),
            Found::Nothing => return Ok(None),
            Found::Several => return Err(Duplicate { at: pointer.upto(above + 2) }),
        };
    }
    Ok(Some(value))
}

// === impl Index ===

impl Index {
    /// Scans a whole body: an object, with nothing but whitespace around it.
    ///
    /// A member given twice is found when it is asked for, not here: what we do not read is for
    /// the vendor to judge.
    ///
    /// # Errors
    ///
    /// [`ScanError`], if it is not UTF-8, not JSON, not an object, or has too many members.
    pub fn scan(text: &[u8]) -> Result<Index, ScanError> {
        let text =
            std::str::from_utf8(text).map_err(|error| ScanError::NotUtf8 { offset: error.valid_up_to() })?;
        if !text.trim_ascii_start().starts_with('{') {
            // Asked first, because the parser would name the value that it got instead.
            return Err(match serde_json::from_str::<&RawValue>(text) {
                Ok(_) => ScanError::NotAnObject,
                Err(error) => ScanError::not_json(text, &error),
            });
        }
        let mut parser = serde_json::Deserializer::from_str(text);
        let scanned = parser.deserialize_map(Scan { text });
        match scanned.and_then(|members| parser.end().map(|()| members)) {
            Ok(members) => Ok(Index { members }),
            // Any JSON will do as a key or value, so the only data at fault is one member more.
            Err(error) if error.is_data() => Err(ScanError::TooManyMembers),
            Err(error) => Err(ScanError::not_json(text, &error)),
        }
    }

    /// The raw value of a member. `key` is what it reads as: `"mod\u0065l"` is `model`.
    ///
    /// # Errors
    ///
    /// [`Duplicate`] if the key is given twice.
    pub fn member<'t>(&self, text: &'t [u8], key: &str) -> Result<Option<&'t [u8]>, Duplicate> {
        let mut same = self.members.iter().filter(|member| member.name(text) == key.as_bytes());
        match (same.next(), same.next()) {
            (None, _) => Ok(None),
            (Some(member), None) => Ok(Some(&text[member.value.clone()])),
            (Some(_), Some(_)) => Err(Duplicate { at: Pointer::to_member(key) }),
        }
    }

    /// All keys as they read, in order, one for each member. A lone surrogate reads as U+FFFD here,
    /// but [`Index::member`] finds such a key by no name.
    pub fn keys<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = Cow<'t, str>> {
        self.members.iter().map(|member| String::from_utf8_lossy(member.name(text)))
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }
}

impl Member {
    /// What the key reads as.
    pub(super) fn name<'t>(&'t self, text: &'t [u8]) -> &'t [u8] {
        match &self.unescaped {
            Some(name) => name,
            None => &text[self.key.start + 1..self.key.end - 1],
        }
    }
}

impl ScanError {
    /// Only for errors of syntax: those do not quote the text.
    pub(super) fn not_json(text: &str, error: &serde_json::Error) -> ScanError {
        let (line, column) = (error.line(), error.column());
        let offset = match error.is_eof() {
            true => text.len(),
            false => line_start(text, line) + column.saturating_sub(1),
        };
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default().into();
        ScanError::NotJson { offset, line, column, problem }
    }
}

/// Offset of the first byte of a line; lines count from 1.
fn line_start(text: &str, line: usize) -> usize {
    let breaks = memchr::memchr_iter(b'\n', text.as_bytes());
    line.checked_sub(2).and_then(|before| breaks.into_iter().nth(before)).map_or(0, |at| at + 1)
}

/// What a raw key reads as, if it has escapes; the bytes of a lone surrogate as in WTF-8.
fn unescape(key: &RawValue) -> Option<Box<[u8]>> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Box<[u8]>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a key")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Box<[u8]>, E> {
            Ok(bytes.into())
        }
    }
    if !key.get().bytes().any(|byte| byte == b'\\') {
        return None;
    }
    serde_json::Deserializer::from_str(key.get()).deserialize_bytes(Bytes).ok()
}

/// Collects the members of one object. Keys are read raw too: that is how their place is known.
struct Scan<'t> {
    text: &'t str,
}

impl Scan<'_> {
    /// Where `part` lies in the text it was borrowed from.
    fn place(&self, part: &RawValue) -> Range<usize> {
        let start = part.get().as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.get().len()
    }
}

impl<'t> Visitor<'t> for Scan<'t> {
    type Value = Vec<Member>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Vec<Member>, A::Error> {
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if members.len() == MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            members.push(Member { key: self.place(key), value: self.place(value), unescaped: unescape(key) });
        }
        Ok(members)
    }
}

/// What was found under a key.
enum Found<'t> {
    Nothing,
    One(&'t RawValue),
    Several,
}

/// Looks for `key` in a raw value that is known to be JSON. Keeps nothing, so it needs no bound.
fn within<'t>(raw: &'t [u8], key: &str) -> Found<'t> {
    let mut found = Found::Nothing;
    if matches!(raw.first(), Some(b'{' | b'[')) {
        let find = Find { key, found: &mut found };
        // The parser minds when the rest of an array is not asked for. It has been checked before.
        let _ = find.deserialize(&mut serde_json::Deserializer::from_slice(raw));
    }
    found
}

struct Find<'k, 't> {
    key: &'k str,
    found: &'k mut Found<'t>,
}

impl<'t> DeserializeSeed<'t> for Find<'_, 't> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'t>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Find<'_, 't> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let same = match unescape(key) {
                Some(name) => *name == *self.key.as_bytes(),
                None => key.get()[1..key.get().len() - 1] == *self.key,
            };
            if same {
                *self.found = match self.found {
                    Found::Nothing => Found::One(value),
                    Found::One(_) | Found::Several => Found::Several,
                };
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut elements: A) -> Result<(), A::Error> {
        let zeros = self.key.len() > 1 && self.key.starts_with('0');
        if zeros || !self.key.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(());
        }
        let Ok(before) = self.key.parse::<usize>() else {
            return Ok(()); // longer than any array, or empty
        };
        for _ in 0..before {
            if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        if let Some(element) = elements.next_element()? {
            *self.found = Found::One(element);
        }
        Ok(())
    }
}
