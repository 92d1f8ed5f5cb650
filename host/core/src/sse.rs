//! Cuts a stream of server-sent events into whole events, wherever the network cut it.
//!
//! The rules are those of the HTML standard, "Server-sent events", section "Interpreting an event
//! stream": lines end with LF, CRLF or CR, a blank line ends an event.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes of one event at most.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Collects what has come until an event is whole.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Where the next line begins.
    line_start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    /// The line before ended with CR: an LF now still belongs to it.
    after_cr: bool,
    /// The event so far has a line that is no comment.
    begun: bool,
}

/// One whole event, or a comment between events, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(Bytes);

/// An event that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Splitter {
    /// Takes what the network brought.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, if it is there.
    ///
    /// # Errors
    ///
    /// [`TooLong`] where more than [`EVENT_BYTES_MAX`] have come of it.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(end) = self.line_end() {
            let line = &self.buffer[self.line_start..end];
            let (blank, comment) = (line.is_empty(), line.first() == Some(&b':'));
            self.after_cr = self.buffer[end] == b'\r';
            let mut next = end + 1;
            if self.after_cr && self.buffer.get(next) == Some(&b'\n') {
                self.after_cr = false;
                next += 1;
            }
            if blank || (comment && !self.begun) {
                return Ok(Some(self.cut(next)));
            }
            self.begun |= !comment;
            (self.line_start, self.searched) = (next, next);
        }
        if self.buffer.len() > EVENT_BYTES_MAX { Err(TooLong) } else { Ok(None) }
    }

    /// What has come of an event that is not whole; for the end of a stream.
    pub fn rest(&mut self) -> Event {
        self.cut(self.buffer.len())
    }

    fn line_end(&mut self) -> Option<usize> {
        if self.after_cr && self.line_start < self.buffer.len() {
            self.after_cr = false;
            if self.buffer[self.line_start] == b'\n' {
                self.line_start += 1;
                self.searched = self.line_start;
            }
        }
        let from = self.searched.max(self.line_start);
        let found = memchr::memchr2(b'\n', b'\r', self.buffer.get(from..)?);
        if found.is_none() {
            self.searched = self.buffer.len();
        }
        found.map(|at| from + at)
    }

    fn cut(&mut self, end: usize) -> Event {
        (self.line_start, self.searched, self.begun) = (0, 0, false);
        Event(self.buffer.split_to(end).freeze())
    }
}

impl Event {
    /// All its bytes, the blank line at its end included.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The event's data: several lines of it are joined by LF. None where it has none.
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut data: Option<Cow<'_, [u8]>> = None;
        for value in self.values(b"data") {
            match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        }
        data
    }

    /// The event's name: the last one, where it has several. None where it has none or an empty
    /// one; the standard calls both `message`.
    pub fn name(&self) -> Option<&[u8]> {
        const FIELD: &[u8] = b"event";
        // Most events have no name: one quick look spares the walk over their lines.
        memchr::memmem::find(&self.0, FIELD)?;
        self.values(FIELD).next_back().filter(|name| !name.is_empty())
    }

    /// What stands in the lines of this field, in order.
    fn values(&self, field: &'static [u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
        // Only a stream's first event can begin with the mark, and it means nothing there.
        let text = self.0.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.0);
        let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
        lines.filter_map(move |line| match line.strip_prefix(field)? {
            [] => Some(&[][..]),
            [b':', value @ ..] => Some(value.strip_prefix(b" ").unwrap_or(value)),
            [_, ..] => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_hides_nothing() {
        let (data, bytes) = read([b"\xef\xbb\xbfdata: a\n\n".as_slice()]);
        assert_eq!(data, ["a"]);
        assert!(bytes.starts_with(BYTE_ORDER_MARK), "it passes");
    }

    /// Data of all events, and all bytes in order, of a stream that comes in these parts.
    fn read<'t>(parts: impl IntoIterator<Item = &'t [u8]>) -> (Vec<String>, Vec<u8>) {
        let (mut splitter, mut data, mut bytes) = (Splitter::default(), Vec::new(), Vec::new());
        for part in parts {
            splitter.push(part);
            while let Some(event) = splitter.next_event().expect("short") {
                bytes.extend_from_slice(event.bytes());
                data.extend(event.data().map(|data| String::from_utf8(data.into_owned()).expect("text")));
            }
        }
        bytes.extend_from_slice(splitter.rest().bytes());
        (data, bytes)
    }

    const STREAM: &str = ": hello\nevent: a\ndata: one\n\ndata:two\ndata:  three\nid: 7\n\n\n: alone\n\nretry: 1\ndata\n\ndata: [DONE]\n\n";

    #[test]
    fn every_cut_and_every_newline_give_the_same_events() {
        for newline in ["\n", "\r\n", "\r"] {
            let text = STREAM.replace('\n', newline);
            let wanted = ["one", "two\n three", "", "[DONE]"];
            for at in 0..=text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                let (data, bytes) = read([first, second]);
                assert_eq!(data, wanted, "{newline:?} cut at {at}");
                assert_eq!(bytes, text.as_bytes(), "{newline:?} cut at {at}");
            }
            let (data, bytes) = read(text.as_bytes().chunks(1));
            assert_eq!((data, bytes), (wanted.map(String::from).to_vec(), text.into_bytes()), "{newline:?}");
        }
    }

    #[test]
    fn an_event_is_there_as_soon_as_its_blank_line_has_begun() {
        for (text, data) in
            [("data: a\n\n", true), ("data: a\r\r", true), ("data: a\r\n\r", true), ("data: a\n", false)]
        {
            let mut splitter = Splitter::default();
            splitter.push(text.as_bytes());
            assert_eq!(splitter.next_event().expect("short").is_some(), data, "{text:?}");
        }
        let mut splitter = Splitter::default();
        splitter.push(b": ping\n");
        assert!(splitter.next_event().expect("short").is_some_and(|event| event.data().is_none()));
    }

    #[test]
    fn an_event_is_called_by_its_last_name() {
        for (text, name) in [
            ("event: error\ndata: a\n\n", Some("error")),
            ("data: a\nevent:error\n\n", Some("error")),
            ("event:  two words \ndata: a\n\n", Some(" two words ")),
            ("event: first\ndata: a\nevent: last\ndata: b\n\n", Some("last")),
            ("event: first\nevent\ndata: a\n\n", None),
            ("event: first\nevent:\ndata: a\n\n", None),
            ("event: \ndata: a\n\n", None),
            ("events: error\nevent : error\n Event: error\nEVENT: error\n: event: error\ndata: a\n\n", None),
            ("data: event: error\ndata: a\n\n", None),
            ("data: a\n\n", None),
            (": event: error\n", None),
        ] {
            for newline in ["\n", "\r\n", "\r"] {
                let mut splitter = Splitter::default();
                splitter.push(text.replace('\n', newline).as_bytes());
                let event = splitter.next_event().expect("short").expect("whole");
                assert_eq!(event.name(), name.map(str::as_bytes), "{text:?} with {newline:?}");
            }
        }
        let mut splitter = Splitter::default();
        assert_eq!(splitter.rest().name(), None);
        splitter.push(b"event: error");
        assert_eq!(splitter.rest().name(), Some(&b"error"[..]));
    }

    #[test]
    fn an_event_that_does_not_end_is_refused_at_the_bound() {
        let mut splitter = Splitter::default();
        splitter.push(&vec![b'a'; EVENT_BYTES_MAX]);
        assert_eq!(splitter.next_event(), Ok(None));
        splitter.push(b"a");
        assert_eq!(splitter.next_event(), Err(TooLong));
        assert_eq!(splitter.rest().bytes().len(), EVENT_BYTES_MAX + 1);
    }
}
