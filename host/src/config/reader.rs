//! Reads TOML tables key by key, remembering where each value stood and which keys nobody
//! asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// Characters of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Time spans that a setting may have.
const DURATION_MIN: Duration = Duration::from_millis(1);
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a misspelt key may be from a known one to be taken for it (Jaro-Winkler).
const NEAR_MIN: f64 = 0.75;

/// One configuration text and what was found wrong in it.
pub(super) struct Document<'d> {
    file: Arc<str>,
    text: &'d str,
    problems: RefCell<Vec<Problem>>,
    secret_files: RefCell<Vec<PathBuf>>,
}

/// A table being read. Call [`Table::finish`] when all keys were asked for.
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    path: String,
    span: Range<usize>,
    entries: &'d DeTable<'d>,
    asked: RefCell<BTreeSet<&'static str>>,
    /// Known, and said to be missing.
    unbuilt: RefCell<BTreeSet<&'static str>>,
}

/// A value with its place.
pub(super) struct Found<'d> {
    pub(super) value: &'d DeValue<'d>,
    pub(super) place: Place,
    document: &'d Document<'d>,
    span: Range<usize>,
}

impl<'d> Document<'d> {
    pub(super) fn new(file: &Path, text: &'d str) -> Document<'d> {
        Document {
            file: file.display().to_string().into(),
            text,
            problems: RefCell::default(),
            secret_files: RefCell::default(),
        }
    }

    pub(super) fn root(&'d self, entries: &'d DeTable<'d>) -> Table<'d> {
        Table {
            document: self,
            path: String::new(),
            span: 0..0,
            entries,
            asked: RefCell::default(),
            unbuilt: RefCell::default(),
        }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> Problem {
        let line = error.span().map_or(0, |span| self.line(span.start));
        let place = Place { file: Arc::clone(&self.file), line, key: String::new(), shown: None };
        place.problem(format!("not TOML: {}", error.message()))
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// What is wrong, by line, and the files that secrets were read from.
    pub(super) fn into_findings(self) -> (Vec<Problem>, Vec<PathBuf>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.place.line);
        (problems, self.secret_files.into_inner())
    }

    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn place(&self, key: String, span: &Range<usize>, show: bool) -> Place {
        let shown = self.text.get(span.clone()).filter(|text| show && !text.contains('\n'));
        let shown = shown.map(|text| text.chars().take(SHOWN_CHARS_MAX).collect());
        Place { file: Arc::clone(&self.file), line: self.line(span.start), key, shown }
    }
}

impl<'d> Table<'d> {
    /// The table itself, for what is missing in it.
    pub(super) fn place(&self) -> Place {
        self.document.place(self.path.clone(), &self.span, false)
    }

    pub(super) fn get(&self, key: &'static str) -> Option<Found<'d>> {
        self.asked.borrow_mut().insert(key);
        self.entries.get(key).map(|value| self.found(key, value))
    }

    /// A key that must be there; its absence is reported.
    pub(super) fn require(&self, key: &'static str, wanted: &str) -> Option<Found<'d>> {
        let found = self.get(key);
        if found.is_none() {
            let mut place = self.place();
            place.key = self.key(key);
            self.report(place.problem(format!("is missing; wanted {wanted}")));
        }
        found
    }

    /// A key that is known, but whose feature is not built.
    pub(super) fn not_built(&self, key: &'static str, feature: &str) {
        self.unbuilt.borrow_mut().insert(key);
        if let Some(value) = self.entries.get(key) {
            let found = self.found(key, value);
            let mut place = found.place;
            if found.value.is_table() || found.value.is_array() {
                place.shown = None;
            }
            self.report(place.problem(format!("not built yet ({feature}); leave this key out")));
        }
    }

    pub(super) fn table(&self, key: &'static str) -> Option<Table<'d>> {
        self.get(key)?.table()
    }

    /// All entries, as a table whose keys are names.
    pub(super) fn named(&self) -> Vec<(String, Found<'d>)> {
        let named = self.entries.iter();
        named.map(|(name, value)| (name.get_ref().to_string(), self.found(name.get_ref(), value))).collect()
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, value) in self.entries {
            let name = key.get_ref().as_ref();
            if asked.contains(name) || self.unbuilt.borrow().contains(name) {
                continue;
            }
            let near = asked.iter().map(|known| (strsim::jaro_winkler(known, name), known));
            let near = near.filter(|(score, _)| *score >= NEAR_MIN).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = match near {
                Some((_, known)) => format!("unknown key; did you mean {known:?}?"),
                None => format!(
                    "unknown key; known here are {}",
                    asked.iter().copied().collect::<Vec<_>>().join(", ")
                ),
            };
            let mut place = self.document.place(self.key(name), &key.span(), false);
            place.line = place.line.min(self.document.line(value.span().start));
            self.report(place.problem(hint));
        }
    }

    pub(super) fn report(&self, problem: Problem) {
        self.document.report(problem);
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    fn found(&self, key: &str, value: &'d Spanned<DeValue<'d>>) -> Found<'d> {
        let span = value.span();
        let place = self.document.place(self.key(key), &span, value.get_ref().as_table().is_none());
        Found { value: value.get_ref(), place, document: self.document, span }
    }
}

impl<'d> Found<'d> {
    /// Reports that something else was wanted.
    pub(super) fn refuse<T>(&self, wanted: impl Into<String>) -> Option<T> {
        self.document.report(self.place.problem(wanted));
        None
    }

    pub(super) fn report(&self, problem: Problem) {
        self.document.report(problem);
    }

    /// The same, but its value is not to be shown: it may be a secret.
    pub(super) fn hidden(mut self) -> Found<'d> {
        self.place.shown = None;
        self
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        match self.value.as_str() {
            Some(text) => Some(text),
            None => self.refuse("wanted a string in quotes"),
        }
    }

    pub(super) fn truth(&self) -> Option<bool> {
        match self.value.as_bool() {
            Some(truth) => Some(truth),
            None => self.refuse("wanted true or false"),
        }
    }

    /// A secret's file; its change is a change of the configuration.
    pub(super) fn read_secret(&self, file: &Path) -> std::io::Result<String> {
        self.document.secret_files.borrow_mut().push(file.into());
        std::fs::read_to_string(file)
    }

    /// A time span from a millisecond to a day, such as "30s" or "1m 30s".
    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration_in(
            DURATION_MIN..=DURATION_MAX,
            "wanted a time from 1ms to 1d, such as \"500ms\", \"30s\" or \"10m\"",
        )
    }

    /// A time span within a range, which `wanted` names.
    pub(super) fn duration_in(&self, range: RangeInclusive<Duration>, wanted: &str) -> Option<Duration> {
        let span = humantime::parse_duration(self.text()?).ok();
        match span.filter(|span| range.contains(span)) {
            Some(span) => Some(span),
            None => self.refuse(wanted),
        }
    }

    /// An integer within a range.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self
            .value
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.refuse(format!("wanted an integer from {} to {}", range.start(), range.end())),
        }
    }

    pub(super) fn table(&self) -> Option<Table<'d>> {
        let Some(entries) = self.value.as_table() else { return self.refuse("wanted a table") };
        let (path, span) = (self.place.key.clone(), self.span.clone());
        let (asked, unbuilt) = (RefCell::default(), RefCell::default());
        Some(Table { document: self.document, path, span, entries, asked, unbuilt })
    }

    /// The tables of an array, `key[0]`, `key[1]` and so on.
    pub(super) fn tables(&self) -> Vec<Table<'d>> {
        self.items().into_iter().filter_map(|item| item.table()).collect()
    }

    pub(super) fn items(&self) -> Vec<Found<'d>> {
        let Some(array) = self.value.as_array() else {
            self.refuse::<()>("wanted an array");
            return Vec::new();
        };
        let item = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| {
            let place = self.document.place(format!("{}[{index}]", self.place.key), &value.span(), true);
            Found { value: value.get_ref(), place, document: self.document, span: value.span() }
        };
        array.iter().enumerate().map(item).collect()
    }

    /// The value as JSON, for a plugin's configuration.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        match to_json(self.value) {
            Some(json) => Some(json),
            None => self.refuse("wanted strings, numbers, booleans, arrays and tables only"),
        }
    }
}

fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => {
            Value::from(number.as_str().parse::<f64>().ok().filter(|float| float.is_finite())?)
        }
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            items.iter().map(|item| to_json(item.get_ref())).collect::<Option<Vec<_>>>()?.into()
        }
        DeValue::Table(entries) => {
            let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), to_json(value.get_ref())?))
            };
            Value::Object(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}
