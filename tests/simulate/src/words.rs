//! The stand-in's tokens: words, separated by Unicode white space.
//!
//! Nobody has to run a tokenizer to say what a bill must be.

/// How many words `text` has.
pub(crate) fn count(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// `text` up to the end of its word number `words_max`, if it has more.
pub(crate) fn truncated(text: &str, words_max: u64) -> Option<&str> {
    if count(text) <= words_max {
        return None;
    }
    let kept = text.split_whitespace().zip(0..words_max).last();
    Some(kept.map_or("", |(word, _)| &text[..end_of(text, word)]))
}

/// The words of `text`, over and over, until there are so many.
pub(crate) fn of_length(text: &str, words: u64) -> String {
    let said = if count(text) == 0 { "word" } else { text };
    let words = said.split_whitespace().cycle().zip(0..words).map(|(word, _)| word);
    words.collect::<Vec<_>>().join(" ")
}

/// `text` in pieces of one word each, with the space before it; the last has
/// also what follows. Together they are `text`, byte by byte.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let end = if words.peek().is_some() { end_of(text, word) } else { text.len() };
        pieces.push(&text[start..end]);
        start = end;
    }
    if pieces.is_empty() && !text.is_empty() {
        pieces.push(text);
    }
    pieces
}

/// Where `word`, a slice of `text`, ends in it.
fn end_of(text: &str, word: &str) -> usize {
    word.as_ptr() as usize - text.as_ptr() as usize + word.len()
}

#[cfg(test)]
mod tests {
    use super::{count, of_length, pieces, truncated};

    const TEXTS: [&str; 6] = ["", "  ", "one", " zwölf  Boxkämpfer\njagen ", "日本語\u{3000}テキスト", "a b"];

    #[test]
    fn pieces_have_one_word_each_and_make_the_text() {
        for text in TEXTS {
            let pieces = pieces(text);
            assert_eq!(pieces.concat(), text);
            assert_eq!(pieces.iter().map(|piece| count(piece)).sum::<u64>(), count(text));
            assert!(pieces.iter().all(|piece| count(piece) <= 1), "{text:?}");
        }
    }

    #[test]
    fn truncation_keeps_that_many_words() {
        for text in TEXTS {
            for words_max in 0..4 {
                match truncated(text, words_max) {
                    None => assert!(count(text) <= words_max),
                    Some(kept) => {
                        assert_eq!(count(kept), words_max);
                        assert!(text.starts_with(kept));
                    }
                }
            }
        }
    }

    #[test]
    fn a_text_can_be_made_of_any_length() {
        for text in TEXTS {
            for words in 0..9 {
                assert_eq!(count(&of_length(text, words)), words, "{text:?}");
            }
        }
    }
}
