//! How a stream is written: lines, comments, and data over several lines.

use bytes::Bytes;
use serde_json::Value;

use crate::body::Piece;
use crate::script::SseStyle;

/// One event of a stream.
pub(crate) struct Event {
    /// Its `event:` line, if the wire has such.
    pub(crate) name: Option<&'static str>,
    pub(crate) data: Data,
    /// Completion tokens in it.
    pub(crate) tokens: u64,
}

pub(crate) enum Data {
    Json(Value),
    /// As it is, over as many lines as it has.
    Text(String),
    /// No event at all, but bytes in place of one.
    Raw(Bytes),
}

/// One piece for each event.
pub(crate) fn write(events: &[Event], style: &SseStyle) -> Vec<Piece> {
    let written = events.iter().enumerate().map(|(index, event)| {
        let bytes = match &event.data {
            // Pretty JSON breaks between tokens only: joined by newlines it is the same JSON.
            Data::Json(json) if style.multi_line_data => {
                framed(index, event.name, &format!("{json:#}"), style)
            }
            Data::Json(json) => framed(index, event.name, &json.to_string(), style),
            Data::Text(text) => framed(index, event.name, text, style),
            Data::Raw(bytes) => bytes.clone(),
        };
        Piece { bytes, tokens: event.tokens }
    });
    written.collect()
}

fn framed(index: usize, name: Option<&str>, data: &str, style: &SseStyle) -> Bytes {
    let newline = style.newline.as_str();
    let mut text = String::new();
    if style.comments {
        text.push_str(": keep-alive");
        text.push_str(newline);
        if index.is_multiple_of(2) {
            text.push_str(newline); // the comment stands alone; else it is a line of the event
        }
    }
    for (field, line) in
        name.map(|name| ("event: ", name)).into_iter().chain(data.lines().map(|line| ("data: ", line)))
    {
        text.push_str(field);
        text.push_str(line);
        text.push_str(newline);
    }
    text.push_str(newline);
    text.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Data, Event, write};
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
        let names = [None, Some("a"), Some("b")];
        let event = |(name, data): (_, &Value)| Event { name, data: Data::Json(data.clone()), tokens: 1 };
        let events: Vec<_> = names.into_iter().zip(&values).map(event).collect();
        for newline in [Newline::Lf, Newline::Crlf, Newline::Cr] {
            for (comments, multi_line_data) in [(false, false), (true, false), (false, true), (true, true)] {
                let style = SseStyle { newline, comments, multi_line_data, chunk_bytes: None };
                let pieces = write(&events, &style);
                let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
                let read = read(str::from_utf8(&bytes).unwrap());
                let read: Vec<Value> = read.iter().map(|data| data.parse().unwrap()).collect();
                assert_eq!(read, values, "{style:?}");
            }
        }
    }
}
