//! Reads a body member by member and collects all that is wrong with it, in FastAPI's manner.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::market::detail::{FieldError, Refused};
use crate::market::money::{NanoUsd, NotMoney, Share};

/// Most bytes of a name, a key or a URL: 2,000.
const NAME_BYTES_MAX: usize = 2_000;

/// The members of a body. Each is asked for once; [`Fields::done`] says what was wrong.
#[derive(Debug)]
#[must_use = "what is wrong is only known when it is done"]
pub(crate) struct Fields {
    members: BTreeMap<String, Box<RawValue>>,
    errors: Vec<FieldError>,
}

// === impl Fields ===

impl Fields {
    /// Takes a JSON object apart.
    pub(crate) fn json(body: &[u8]) -> Result<Fields, Refused> {
        let invalid =
            |kind, msg: String| Refused::invalid(vec![FieldError::new(kind, &["body"], msg, Value::Null)]);
        if body.is_empty() {
            return Err(invalid("missing", "Field required".to_owned()));
        }
        if let Err(error) = serde_json::from_slice::<&RawValue>(body) {
            return Err(invalid("json_invalid", format!("JSON decode error: {error}")));
        }
        match serde_json::from_slice(body) {
            Ok(members) => Ok(Fields { members, errors: Vec::new() }),
            Err(_) => {
                let msg = "Input should be a valid dictionary or object to extract fields from";
                Err(invalid("model_attributes_type", msg.to_owned()))
            }
        }
    }

    /// Takes a form apart; its members are texts.
    pub(crate) fn form(body: &[u8]) -> Fields {
        let pairs = pairs(&String::from_utf8_lossy(body));
        let raw = |text: String| RawValue::from_string(Value::String(text).to_string()).ok();
        let members = pairs.into_iter().filter_map(|(name, value)| Some((name, raw(value)?)));
        Fields { members: members.collect(), errors: Vec::new() }
    }

    /// A text that has to be there.
    pub(crate) fn text(&mut self, name: &'static str) -> String {
        match self.text_if_any(name) {
            Some(text) => text,
            None => self.missing(name).unwrap_or_default(),
        }
    }

    pub(crate) fn text_if_any(&mut self, name: &'static str) -> Option<String> {
        let value = self.value(name)?;
        match value {
            Value::String(text) => Some(text),
            other => self.wrong("string_type", name, "Input should be a valid string", other),
        }
    }

    /// A text that has to be there and is no longer than a name or a URL.
    pub(crate) fn name(&mut self, name: &'static str) -> String {
        match self.name_if_any(name) {
            Some(text) => text,
            None => self.missing(name).unwrap_or_default(),
        }
    }

    pub(crate) fn name_if_any(&mut self, name: &'static str) -> Option<String> {
        let text = self.text_if_any(name)?;
        if text.len() <= NAME_BYTES_MAX {
            return Some(text);
        }
        self.wrong("string_too_long", name, "String should have at most 2000 characters", Value::Null)
    }

    /// An amount that has to be there.
    pub(crate) fn amount(&mut self, name: &'static str) -> NanoUsd {
        match self.amount_if_any(name) {
            Some(amount) => amount,
            None => self.missing(name).unwrap_or_default(),
        }
    }

    pub(crate) fn amount_if_any(&mut self, name: &'static str) -> Option<NanoUsd> {
        let read = NanoUsd::read(self.raw(name)?.get());
        read.map_err(|error| self.not_money(name, error)).ok()
    }

    pub(crate) fn share_if_any(&mut self, name: &'static str) -> Option<Share> {
        match Share::read(self.raw(name)?.get()) {
            Ok(Some(share)) => Some(share),
            Ok(None) => {
                let value = self.value(name).unwrap_or_default();
                self.wrong("less_than_equal", name, "Input should be less than or equal to 1", value)
            }
            Err(error) => {
                self.not_money(name, error);
                None
            }
        }
    }

    /// A number of seconds, with fractions.
    pub(crate) fn seconds_if_any(&mut self, name: &'static str) -> Option<Duration> {
        self.amount_if_any(name).map(|seconds| Duration::from_nanos(seconds.nanos()))
    }

    pub(crate) fn flag_if_any(&mut self, name: &'static str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong("bool_type", name, "Input should be a valid boolean", other),
        }
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Vec<Value> {
        match self.list_if_any(name) {
            Some(list) => list,
            None => self.missing(name).unwrap_or_default(),
        }
    }

    pub(crate) fn list_if_any(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.value(name)? {
            Value::Array(list) => Some(list),
            other => self.wrong("list_type", name, "Input should be a valid list", other),
        }
    }

    /// Adds what a caller found wrong with a member.
    pub(crate) fn wrong<T>(&mut self, kind: &'static str, name: &str, msg: &str, input: Value) -> Option<T> {
        self.errors.push(FieldError::new(kind, &["body", name], msg, input));
        None
    }

    /// Refuses the body if anything was wrong with it.
    pub(crate) fn done(self) -> Result<(), Refused> {
        if self.errors.is_empty() { Ok(()) } else { Err(Refused::invalid(self.errors)) }
    }

    /// A member that is there and not null.
    fn raw(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(Box::as_ref).filter(|raw| raw.get() != "null")
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.raw(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// Blames a member for not being there, unless it is blamed already.
    fn missing<T>(&mut self, name: &'static str) -> Option<T> {
        if self.errors.iter().any(|error| error.loc.last().is_some_and(|last| last == name)) {
            return None;
        }
        self.wrong("missing", name, "Field required", Value::Null)
    }

    fn not_money(&mut self, name: &'static str, error: NotMoney) {
        let (kind, msg) = match error {
            NotMoney::NotANumber => ("float_type", "Input should be a valid number"),
            NotMoney::Negative => ("greater_than_equal", "Input should be greater than or equal to 0"),
            NotMoney::TooFine => ("decimal_max_places", "Input should have no more than 9 decimal places"),
            NotMoney::TooLarge => ("less_than_equal", "Input should be less than or equal to 1000000"),
        };
        let value = self.value(name).unwrap_or_default();
        self.wrong::<()>(kind, name, msg, value);
    }
}

/// The names and values of a query or a form.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    pairs.map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::{Fields, pairs};

    #[test]
    fn all_that_is_wrong_is_named_once() {
        let mut fields = Fields::json(br#"{"a": 1, "b": -1, "c": "x", "d": 1.5, "g": null}"#).unwrap();
        fields.text("a");
        fields.amount("b");
        fields.list("c");
        fields.share_if_any("d");
        fields.text("e");
        assert_eq!((fields.text_if_any("f"), fields.text_if_any("g")), (None, None));
        let refused = fields.done().unwrap_err();
        let json: serde_json::Value = refused.json().parse().unwrap();
        let errors = json["detail"].as_array().unwrap();
        let kinds: Vec<_> =
            errors.iter().map(|error| (error["type"].as_str(), error["loc"][1].as_str())).collect();
        let expected = [
            ("string_type", "a"),
            ("greater_than_equal", "b"),
            ("list_type", "c"),
            ("less_than_equal", "d"),
            ("missing", "e"),
        ];
        assert_eq!(kinds, expected.map(|(kind, name)| (Some(kind), Some(name))));
        assert_eq!(refused.status, 422);
    }

    #[test]
    fn what_is_no_object_is_refused_whole() {
        for body in ["", "{", "[]", "1", "{\"a\":}"] {
            assert_eq!(Fields::json(body.as_bytes()).unwrap_err().status, 422, "{body}");
        }
    }

    #[test]
    fn forms_are_decoded() {
        let mut fields = Fields::form(b"username=a%40b.c&password=x+y%2B");
        assert_eq!((fields.text("username"), fields.text("password")), ("a@b.c".into(), "x y+".into()));
        assert!(fields.done().is_ok());
        assert_eq!(pairs("a&b=c=d"), [("a".into(), String::new()), ("b".into(), "c=d".into())]);
    }
}
