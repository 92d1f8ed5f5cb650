//! What holds for any body and any edits, against a slow and plain model of both.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::*;

/// What keys read as, and ways to write them.
const KEYS: [(&str, [&str; 2]); 6] = [
    ("a", [r#""a""#, r#""\u0061""#]),
    ("b", [r#""b""#, r#""b""#]),
    ("c/d", [r#""c/d""#, r#""c\/d""#]),
    ("é", [r#""é""#, r#""\u00E9""#]),
    ("m~\n", [r#""m~\n""#, r#""\u006d~\u000a""#]),
    ("0", [r#""0""#, r#""\u0030""#]),
];

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", "", " ", "\n", "\t ", "\r\n  "])
}

fn scalar() -> impl Strategy<Value = String> {
    let texts = [
        "null",
        "true",
        "false",
        "0",
        "-0.0",
        "1E+2",
        "1e999",
        "0.10",
        "123456789012345678901234567890",
        r#""""#,
        r#""x""#,
        r#""\ud800""#,
        r#""\u00e9\n\"""#,
        r#""{,}[:]""#,
        r#""😀 é""#,
        "[]",
        "{}",
        "[ ]",
        "{\n}",
    ];
    select(texts.to_vec()).prop_map(str::to_owned)
}

/// The members of an object as they are written, without commas: whitespace, key, colon, value.
fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<(String, String)>> {
    let member = (select(KEYS.to_vec()), 0..2_usize, [space(), space(), space(), space()], value);
    (prop::collection::vec(member, 0..6), 0..5_u8).prop_map(|(members, twice)| {
        let mut names: Vec<String> = vec![];
        let mut out = vec![];
        for ((name, written), which, space, value) in members {
            if twice > 0 && names.iter().any(|known| known == name) {
                continue; // most objects are sound
            }
            names.push(name.to_owned());
            let [a, b, c, d] = space;
            out.push((name.to_owned(), format!("{a}{}{b}:{c}{value}{d}", written[which])));
        }
        out
    })
}

fn object(members: &[(String, String)]) -> String {
    let texts: Vec<&str> = members.iter().map(|(_, text)| text.as_str()).collect();
    format!("{{{}}}", texts.join(","))
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(3, 24, 4, |inner| {
        let element = (space(), inner.clone(), space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let array = prop::collection::vec(element, 0..4).prop_map(|all| format!("[{}]", all.join(",")));
        prop_oneof![1 => array, 3 => members(inner).prop_map(|members| object(&members))]
    })
}

fn place() -> impl Strategy<Value = Pointer> {
    let key = select(KEYS.to_vec()).prop_map(|(name, _)| name.replace('~', "~0").replace('/', "~1"));
    prop::collection::vec(key, 1..4).prop_map(|keys| pointer(&format!("/{}", keys.join("/"))))
}

fn edit() -> impl Strategy<Value = Edit> {
    (0..4_u8, place(), place(), value()).prop_map(|(kind, at, to, value)| match kind {
        0 => Edit::Set { at, value: raw(&value) },
        1 => Edit::Insert { at, value: raw(&value) },
        2 => Edit::Remove { at },
        _ => Edit::Move { from: at, to },
    })
}

// === the model ===

/// An object as `serde_json` reads it, pair by pair.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(parser: D) -> Result<Pairs, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = vec![];
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        parser.deserialize_map(Collect)
    }
}

/// Keys as they read, values as they are written.
type Members = Vec<(String, String)>;

fn pairs(text: &str) -> Option<Members> {
    let Pairs(pairs) = serde_json::from_str(text).ok()?;
    Some(pairs.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect())
}

fn compact(pairs: &[(String, String)]) -> String {
    let members: Vec<String> = pairs.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
    format!("{{{}}}", members.join(","))
}

/// The same value with plain keys and no whitespace; scalars as they are written.
fn canonical(text: &str) -> String {
    if let Some(mut pairs) = pairs(text) {
        pairs.iter_mut().for_each(|(_, value)| *value = canonical(value));
        return compact(&pairs);
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(elements) => {
            let elements: Vec<String> = elements.iter().map(|element| canonical(element.get())).collect();
            format!("[{}]", elements.join(","))
        }
        Err(_) => text.to_owned(),
    }
}

#[derive(Debug, PartialEq)]
enum Misfit {
    Duplicate,
    Missing,
    NotAnObject,
}

/// Lets `change` have the members of the object that `keys` name one of, and that one's place.
fn modelled(
    text: &str,
    keys: &[String],
    change: &mut dyn FnMut(&mut Members, Option<usize>),
) -> Result<String, Misfit> {
    let mut pairs = pairs(text).ok_or(Misfit::NotAnObject)?;
    let same: Vec<usize> = (0..pairs.len()).filter(|place| pairs[*place].0 == keys[0]).collect();
    if same.len() > 1 {
        return Err(Misfit::Duplicate);
    }
    match (same.first(), &keys[1..]) {
        (place, []) => change(&mut pairs, place.copied()),
        (None, _) => return Err(Misfit::Missing),
        (Some(place), below) => pairs[*place].1 = modelled(&pairs[*place].1, below, change)?,
    }
    Ok(compact(&pairs))
}

fn model_put(text: &str, at: &Pointer, value: &str, replace: bool) -> Result<String, Misfit> {
    let keys: Vec<String> = at.keys().map(Cow::into_owned).collect();
    modelled(text, &keys, &mut |pairs, place| match place {
        Some(place) if replace => pairs[place].1 = value.to_owned(),
        Some(_) => (),
        None => pairs.push((keys[keys.len() - 1].clone(), value.to_owned())),
    })
}

fn model_take(text: &str, at: &Pointer) -> Result<(String, Option<String>), Misfit> {
    let keys: Vec<String> = at.keys().map(Cow::into_owned).collect();
    let mut taken = None;
    let out = modelled(text, &keys, &mut |pairs, place| taken = place.map(|place| pairs.remove(place).1));
    match out {
        Ok(out) => Ok((out, taken)),
        Err(Misfit::Missing) => Ok((text.to_owned(), None)),
        Err(misfit) => Err(misfit),
    }
}

fn model(text: &str, edits: &[Edit]) -> Result<String, Misfit> {
    let mut text = text.to_owned();
    for edit in edits {
        text = match edit {
            Edit::Set { at, value } => model_put(&text, at, value.as_str(), true)?,
            Edit::Insert { at, value } => model_put(&text, at, value.as_str(), false)?,
            Edit::Remove { at } => model_take(&text, at)?.0,
            Edit::Move { from, to } if from == to => text,
            Edit::Move { from, to } => match model_take(&text, from)? {
                (rest, Some(value)) => model_put(&rest, to, &value, false)?,
                (rest, None) => rest,
            },
        };
    }
    Ok(text)
}

/// The first keys of the places that an edit names.
fn touched(edit: &Edit) -> Vec<String> {
    let places = match edit {
        Edit::Set { at, .. } | Edit::Insert { at, .. } | Edit::Remove { at } => vec![at],
        Edit::Move { from, to } => vec![from, to],
    };
    places.iter().filter_map(|at| at.keys().next().map(Cow::into_owned)).collect()
}

// === the laws ===

proptest! {
    #[test]
    fn no_edits_change_nothing(members in members(value()), before in space(), after in space()) {
        let text = format!("{before}{}{after}", object(&members));
        prop_assert_eq!(edited(&text, &[]), Ok(text));
    }

    #[test]
    fn a_set_to_the_same_value_changes_nothing(members in members(value()), at in place()) {
        let text = object(&members);
        if let Ok(Some(value)) = found(&text, at.as_str()) {
            let edit = Edit::Set { at, value: raw(&value) };
            match edited(&text, &[edit]) {
                Err(SpliceError::NotAnObject { .. }) => (), // an element
                out => prop_assert_eq!(out, Ok(text)),
            }
        }
    }

    #[test]
    fn edits_do_what_the_model_does(
        members in members(value()), edits in prop::collection::vec(edit(), 1..5),
    ) {
        let text = object(&members);
        match (edited(&text, &edits), model(&text, &edits)) {
            (Ok(out), Ok(modelled)) => prop_assert_eq!(canonical(&out), canonical(&modelled)),
            (Err(SpliceError::Duplicate(_)), Err(Misfit::Duplicate))
            | (Err(SpliceError::MissingParent { .. }), Err(Misfit::Missing))
            | (Err(SpliceError::NotAnObject { .. }), Err(Misfit::NotAnObject)) => (),
            (out, modelled) => prop_assert!(false, "{:?}, but {:?}", out, modelled),
        }
    }

    #[test]
    fn what_no_edit_names_keeps_its_bytes_and_its_order(
        members in members(value()), edits in prop::collection::vec(edit(), 1..4),
    ) {
        let Ok(out) = edited(&object(&members), &edits) else {
            return Ok(());
        };
        let touched: Vec<String> = edits.iter().flat_map(touched).collect();
        let mut rest = out.as_str();
        for (name, text) in members.iter().filter(|(name, _)| !touched.contains(name)) {
            let text = text.trim_ascii_end(); // behind the last value comes what was appended
            let Some(at) = rest.find(text) else {
                return Err(TestCaseError::fail(format!("{name} is not as it was in {out}")));
            };
            rest = &rest[at + text.len()..];
        }
    }

    #[test]
    fn get_finds_what_the_model_has(members in members(value()), at in place()) {
        let text = object(&members);
        let keys: Vec<String> = at.keys().map(Cow::into_owned).collect();
        let mut there = None;
        let modelled = modelled(&text, &keys, &mut |pairs, place| there = place.map(|place| pairs[place].1.clone()));
        match (modelled, found(&text, at.as_str())) {
            (Err(Misfit::Duplicate), found) => prop_assert!(found.is_err()),
            (Err(Misfit::NotAnObject), found) => prop_assert!(found.is_ok()), // may be an element
            (_, found) => prop_assert_eq!(found, Ok(there)),
        }
    }

    #[test]
    fn scan_takes_what_serde_json_takes(
        members in members(value()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, select(
            b"{}[]:,\"\\u0e+-. \n\t\x00\x1f\x7f\xc3\xa9\xff/atn".to_vec())), 0..3),
    ) {
        let mut text = object(&members).into_bytes();
        for (place, kind, byte) in changes {
            let at = place.index(text.len().max(1)).min(text.len());
            match kind {
                0 => text.insert(at, byte),
                1 if at < text.len() => text[at] = byte,
                _ if at < text.len() => drop(text.remove(at)),
                _ => (),
            }
        }
        let object = text.trim_ascii_start().starts_with(b"{");
        let json = serde_json::from_slice::<&RawValue>(&text).is_ok();
        prop_assert_eq!(Index::scan(&text).is_ok(), json && object, "{}", text.escape_ascii());
        // The other way to read is stricter: ranges of numbers, surrogates, depth.
        if serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|value| value.is_object()) {
            prop_assert!(Index::scan(&text).is_ok(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn pointers_read_back(keys in prop::collection::vec(".{0,8}", 0..POINTER_DEPTH_MAX)) {
        let text: String = keys.iter().map(|key| Pointer::to_member(key).to_string()).collect();
        let read: Vec<String> = pointer(&text).keys().map(Cow::into_owned).collect();
        prop_assert_eq!(read, keys);
    }

    #[test]
    fn strings_read_back(text in "\\PC{0,20}|[\\x00-\\x7f]{0,20}") {
        let written = Raw::string(&text);
        let read = as_str(written.as_str().as_bytes());
        prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        prop_assert_eq!(&raw(written.as_str()), &written);
    }
}
