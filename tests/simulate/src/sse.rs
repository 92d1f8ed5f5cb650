//! How a stream is written: lines, comments, and data over several lines.

use crate::answer::Event;
use crate::body::Piece;
use crate::script::SseStyle;

const DONE: &str = "[DONE]";

/// One piece for each event, and one for `[DONE]`.
pub(crate) fn write(events: &[Event], style: &SseStyle) -> Vec<Piece> {
    let data_of = |event: &Event| match style.multi_line_data {
        // Pretty JSON breaks between tokens only: joined by newlines it is the same JSON.
        true => format!("{:#}", event.data),
        false => event.data.to_string(),
    };
    let data = events.iter().map(|event| (data_of(event), event.tokens));
    let done = (DONE.to_owned(), 0);
    data.chain([done])
        .enumerate()
        .map(|(index, (data, tokens))| Piece { bytes: event(index, &data, style).into(), tokens })
        .collect()
}

fn event(index: usize, data: &str, style: &SseStyle) -> String {
    let newline = style.newline.as_str();
    let mut text = String::new();
    if style.comments {
        text.push_str(": keep-alive");
        text.push_str(newline);
        if index.is_multiple_of(2) {
            text.push_str(newline); // the comment stands alone; else it is a line of the event
        }
    }
    for line in data.lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push_str(newline);
    }
    text.push_str(newline);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Event, write};
    use crate::script::{Newline, SseStyle};

    /// Reads a stream by the rules of the HTML standard, data lines alone.
    fn read(stream: &str) -> Vec<String> {
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        let data_of = |event: &str| {
            let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            (!data.is_empty()).then(|| data.join("\n"))
        };
        lines.split("\n\n").filter_map(data_of).collect()
    }

    #[test]
    fn every_style_reads_as_the_same_events() {
        let values = [json!({"a": {"b": ["ü\n\r", 1]}}), json!({}), json!({"c": "日本"})];
        let events: Vec<_> = values.iter().map(|data| Event { data: data.clone(), tokens: 1 }).collect();
        for newline in [Newline::Lf, Newline::Crlf, Newline::Cr] {
            for (comments, multi_line_data) in [(false, false), (true, false), (false, true), (true, true)] {
                let style = SseStyle { newline, comments, multi_line_data, chunk_bytes: None };
                let pieces = write(&events, &style);
                let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
                let mut read = read(str::from_utf8(&bytes).unwrap());
                assert_eq!(read.pop().unwrap(), "[DONE]", "{style:?}");
                let read: Vec<Value> = read.iter().map(|data| data.parse().unwrap()).collect();
                assert_eq!(read, values, "{style:?}");
            }
        }
    }
}
