//! Which entry of the configuration serves a model's name.

/// A model's name, or a glob: `*` stands for any run of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Takes any text; only `*` is special.
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern(text.into())
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for more than one name.
    pub fn is_glob(&self) -> bool {
        self.0.contains('*')
    }

    /// How many `*` it has.
    pub fn stars(&self) -> usize {
        self.0.matches('*').count()
    }

    /// What the only `*` stands for in a name that matches.
    pub fn star<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (before, after) = self.0.split_once('*').filter(|_| self.stars() == 1)?;
        name.strip_prefix(before)?.strip_suffix(after)
    }

    /// The name in which the only `*` stands for `text`.
    pub fn with_star(&self, text: &str) -> Option<String> {
        (self.stars() == 1).then(|| self.0.replace('*', text))
    }

    /// Whether it stands for this name.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
        let Some(last) = self.0.split('*').next_back().filter(|_| self.is_glob()) else {
            return rest.is_empty();
        };
        let middle: Vec<&str> = parts.collect();
        for part in &middle[..middle.len() - 1] {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// The entry that serves `name`: a plain name before any glob, the longest glob that
/// matches, the first among equals.
pub fn best<'p, T>(entries: impl IntoIterator<Item = (&'p Pattern, T)>, name: &str) -> Option<T> {
    let mut found: Option<((bool, usize), T)> = None;
    for (pattern, entry) in entries {
        let rank = (!pattern.is_glob(), pattern.0.len());
        if pattern.matches(name) && found.as_ref().is_none_or(|(best, _)| rank > *best) {
            found = Some((rank, entry));
        }
    }
    found.map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_runs_and_nothing_else() {
        let table = [
            ("gpt-4", "gpt-4", true),
            ("gpt-4", "gpt-4o", false),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "xgpt-4o", false),
            ("*", "", true),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-2", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a__b__c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("ab*ba", "aba", false),
            ("*b*", "abc", true),
            ("**", "x", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_star_stands_for_what_is_between() {
        assert_eq!(Pattern::new("groq/*").star("groq/llama"), Some("llama"));
        assert_eq!(Pattern::new("groq/*").star("other/llama"), None);
        assert_eq!(Pattern::new("a*b*").star("a1b2"), None);
        assert_eq!(Pattern::new("plain").star("plain"), None);
        assert_eq!(Pattern::new("groq/*").with_star("llama").as_deref(), Some("groq/llama"));
        assert_eq!(Pattern::new("a*b*").with_star("1"), None);
    }

    #[test]
    fn the_longest_pattern_wins_whatever_the_order() {
        let patterns: Vec<Pattern> = ["*", "gpt-4*", "gpt-4o*", "gpt-4o", "gpt-*"].map(Pattern::new).into();
        let serve = |name| best(patterns.iter().map(|pattern| (pattern, pattern.as_str())), name);
        assert_eq!(serve("gpt-4o"), Some("gpt-4o"));
        assert_eq!(serve("gpt-4.1"), Some("gpt-4*"));
        assert_eq!(serve("gpt-3"), Some("gpt-*"));
        assert_eq!(serve("claude"), Some("*"));
        assert_eq!(best([(&Pattern::new("x"), ())], "y"), None);
    }
}
