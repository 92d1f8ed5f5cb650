//! JSON of which only what must be known is read: values stay the text that they came as.
//!
//! A [`Node`] is a value with the place it stands at, so that whoever refuses it can say where.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sluice_plugin::adapter::PluginError;

/// A value of the request and where it stands, such as `messages[2].content`.
#[derive(Clone)]
pub struct Node<'a> {
    pub path: String,
    pub raw: &'a RawValue,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    List,
    Object,
    /// A number, `true` or `false`.
    Plain,
}

/// An object of the request: its members that nobody has taken yet.
pub struct Object<'a> {
    path: String,
    members: Members<'a>,
}

struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

/// Borrowed where it has no escapes.
#[derive(Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// A refusal that names the member. What this vendor does not serve, another one may: that no vendor
/// would is not for one adapter to say.
pub fn unserved(path: &str, what: &str) -> PluginError {
    PluginError::Unsupported(format!("{path}: {what}"))
}

// === impl Node ===

impl<'a> Node<'a> {
    pub fn kind(&self) -> Kind {
        match self.raw.get().as_bytes().first() {
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::List,
            Some(b'{') => Kind::Object,
            Some(_) | None => Kind::Plain,
        }
    }

    pub fn text(&self) -> Result<Cow<'a, str>, PluginError> {
        self.read("a string is wanted").map(|text: Text<'a>| text.0)
    }

    pub fn number(&self) -> Result<f64, PluginError> {
        self.read("a number is wanted")
    }

    pub fn count(&self) -> Result<u64, PluginError> {
        self.read("a whole number, zero or more, is wanted")
    }

    pub fn truth(&self) -> Result<bool, PluginError> {
        self.read("true or false is wanted")
    }

    /// A value that is read whole. A file in base64 is scanned as seldom as can be: a plan has
    /// milliseconds, and each scan of a file takes one or two.
    pub fn read<T: Deserialize<'a>>(&self, wanted: &str) -> Result<T, PluginError> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.unserved(wanted))
    }

    pub fn object(self) -> Result<Object<'a>, PluginError> {
        match serde_json::from_str(self.raw.get()) {
            Ok(members) => Ok(Object { path: self.path, members }),
            Err(_) => Err(self.unserved("an object is wanted")),
        }
    }

    /// A list of objects, read in one go.
    pub fn objects(&self) -> Result<Vec<Object<'a>>, PluginError> {
        let items: Vec<Members<'a>> = self.read("a list of objects is wanted")?;
        let place = |(index, members)| Object { path: format!("{}[{index}]", self.path), members };
        Ok(items.into_iter().enumerate().map(place).collect())
    }

    /// A list of values that pass as they are.
    pub fn items(&self) -> Result<Vec<&'a RawValue>, PluginError> {
        self.read("a list is wanted")
    }

    pub fn unserved(&self, what: &str) -> PluginError {
        unserved(&self.path, what)
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// The body of a request; its members stand at their own names.
    pub fn body(bytes: &'a [u8]) -> Result<Object<'a>, PluginError> {
        let members = serde_json::from_slice(bytes)
            .map_err(|error| PluginError::InvalidRequest(format!("the body is no JSON object: {error}")))?;
        Ok(Object { path: String::new(), members })
    }

    /// Takes a member; one that is `null` asks for nothing.
    pub fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let members = &mut self.members.0;
        let at = members.iter().rposition(|(key, _)| key.0 == name)?;
        let (_, raw) = members.swap_remove(at);
        if raw.get() == "null" { None } else { Some(Node { path: self.at(name), raw }) }
    }

    /// Takes a member that goes on as it is.
    pub fn take_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.take(name).map(|node| node.raw)
    }

    pub fn want(&mut self, name: &str) -> Result<Node<'a>, PluginError> {
        self.take(name).ok_or_else(|| unserved(&self.at(name), "is missing"))
    }

    /// Where a member stands.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// What nobody has taken.
    pub fn rest(self) -> impl Iterator<Item = Node<'a>> {
        let path = self.path;
        let said = self.members.0.into_iter().filter(|(_, raw)| raw.get() != "null");
        said.map(move |(key, raw)| {
            let path = if path.is_empty() { key.0.into_owned() } else { format!("{path}.{}", key.0) };
            Node { path, raw }
        })
    }

    /// Nothing is lost in silence: what is neither taken nor one of `echoes` is refused.
    pub fn finish(self, echoes: &[&str]) -> Result<(), PluginError> {
        let start = if self.path.is_empty() { 0 } else { self.path.len() + 1 };
        let strange = self.rest().find(|node| !echoes.contains(&&node.path[start..]));
        strange.map_or(Ok(()), |node| Err(node.unserved("is not known here, or stands twice; leave it out")))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Whether a string's JSON has nothing but white space in it: Anthropic refuses such text.
pub fn is_blank(raw: &RawValue) -> bool {
    let mut rest = raw.get().trim_matches('"');
    loop {
        let before = rest.len();
        rest = rest.trim_start();
        for escape in ["\\n", "\\r", "\\t"] {
            rest = rest.strip_prefix(escape).unwrap_or(rest);
        }
        if rest.is_empty() || rest.len() == before {
            return rest.is_empty();
        }
    }
}

/// The same JSON without white space between its parts; numbers and the order of members stay.
pub fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_takes_only_white_space_outside_of_strings() {
        let pretty = "{ \"a b\" :\n [1.50, \" \\\" , \\\\\", true ] }";
        assert_eq!(compact(pretty), r#"{"a b":[1.50," \" , \\",true]}"#);
    }

    #[test]
    fn blank_is_white_space_escaped_or_not() {
        for (json, blank) in [
            (r#""""#, true),
            (r#"" \n\t\r ""#, true),
            (r#""\n a""#, false),
            (r#""\\n""#, false),
            (r#""\"""#, false),
        ] {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(is_blank(raw), blank, "{json}");
        }
    }

    #[test]
    fn members_are_taken_once_and_the_rest_is_known_by_its_place() {
        let mut object = Object::body(br#"{"a":1,"b":null,"a":2,"\u0063":3}"#).unwrap();
        assert_eq!(object.take("a").unwrap().raw.get(), "2", "the last one counts, as for other readers");
        assert!(object.take("b").is_none());
        let rest: Vec<String> = object.rest().map(|node| node.path).collect();
        assert_eq!(rest.len(), 2);
        assert!(rest.contains(&"a".to_owned()) && rest.contains(&"c".to_owned()));
    }
}
