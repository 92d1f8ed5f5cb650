//! Words that a text may have: in any case, and not as a part of another word.

use serde::Deserialize;

/// Words in lower case.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Vec<String>")]
pub(crate) struct Words(Vec<String>);

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Words {
        let lower = words.iter().map(|word| word.trim().to_lowercase());
        Words(lower.filter(|word| !word.is_empty()).collect())
    }
}

impl Words {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them stands in this text, which is in lower case.
    pub(crate) fn any_in(&self, text: &str) -> bool {
        self.0.iter().any(|word| stands_in(word, text))
    }
}

/// As a word of its own: `art` stands in "art.", not in "start"; `github.com` in
/// "https://github.com/x".
fn stands_in(word: &str, text: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !joined(before, word.chars().next()) && !joined(word.chars().next_back(), after)
    })
}

/// Two characters side by side that belong to one word.
fn joined(left: Option<char>, right: Option<char>) -> bool {
    let is_part = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
    is_part(left) && is_part(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_alone_whatever_their_case() {
        let words = Words::from(vec![" Art ".into(), "GitHub.com/".into(), "C++".into(), "über".into()]);
        for text in ["Art for art's sake", "https://github.com/a", "in c++17", "alles ÜBER sie", "(art)"] {
            assert!(words.any_in(&text.to_lowercase()), "{text}");
        }
        for text in ["start", "artful", "mygithub.com/a", "c+ +", "überall", "", "xc++"] {
            assert!(!words.any_in(&text.to_lowercase()), "{text}");
        }
    }

    #[test]
    fn a_word_of_nothing_is_no_word() {
        assert!(Words::from(vec![" ".into(), String::new()]).is_empty());
    }
}
