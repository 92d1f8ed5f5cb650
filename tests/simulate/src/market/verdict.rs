//! What a requester thinks of an answer: whether it is a completion, and says something.

use http::StatusCode;
use serde_json::{Value, json};

use crate::market::call::Answer;
use crate::market::instance::{CallRow, Verdict};

/// A stream of chunks, put together.
#[derive(Default)]
struct Stream {
    content: String,
    finish_reason: Option<String>,
    usage: Value,
    done: bool,
}

/// Fills in verdict, reason and usage.
pub(crate) fn judged(answer: &Answer, row: CallRow) -> CallRow {
    let completion = if row.streamed { streamed(answer) } else { whole(answer) };
    let completion = match completion {
        Ok(completion) => completion,
        Err(why) => return CallRow { verdict: Verdict::Failed, why: Some(why), ..row },
    };
    let usage = |name: &str| completion["usage"][name].as_u64();
    let (prompt_tokens, completion_tokens) = (usage("prompt_tokens"), usage("completion_tokens"));
    let content = completion["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    let says_nothing = content.trim().is_empty();
    let verdict = if says_nothing { Verdict::Bad } else { Verdict::Good };
    let why = says_nothing.then(|| "the completion has no content".to_owned());
    CallRow { verdict, why, prompt_tokens, completion_tokens, ..row }
}

/// The completion of a stream's chunks; None if it is no stream.
pub(crate) fn joined(body: &[u8]) -> Option<Value> {
    read_stream(body).ok().map(Stream::completion)
}

fn whole(answer: &Answer) -> Result<Value, String> {
    is_ok(answer)?;
    let completion: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is no JSON: {error}"))?;
    if completion["object"] != "chat.completion" {
        return Err("the answer is no chat.completion".to_owned());
    }
    let choice = &completion["choices"][0];
    if !choice["message"].is_object() || !choice["finish_reason"].is_string() {
        return Err("the answer has no choice with a message and a finish_reason".to_owned());
    }
    Ok(completion)
}

fn streamed(answer: &Answer) -> Result<Value, String> {
    is_ok(answer)?;
    let content_type = answer.content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with("text/event-stream") {
        return Err(format!("the answer is {content_type:?}, and not an event stream"));
    }
    let stream = read_stream(&answer.body)?;
    if !stream.done {
        return Err("the stream has no [DONE]".to_owned());
    }
    if stream.finish_reason.is_none() {
        return Err("the stream has no finish_reason".to_owned());
    }
    Ok(stream.completion())
}

fn is_ok(answer: &Answer) -> Result<(), String> {
    match answer.status {
        StatusCode::OK => Ok(()),
        status => Err(format!("the endpoint answered {status}")),
    }
}

/// Reads the frames of a stream: comments are nothing, and all else is
/// chunks up to `[DONE]`, after which there is nothing.
fn read_stream(body: &[u8]) -> Result<Stream, String> {
    let text = str::from_utf8(body).map_err(|_| "the stream is no text".to_owned())?;
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut stream = Stream::default();
    let mut data: Vec<&str> = Vec::new();
    for line in lines.split('\n') {
        if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value));
        } else if line.is_empty() && !data.is_empty() {
            stream.takes(&data.join("\n"))?;
            data.clear();
        } else if !line.is_empty() && !line.starts_with(':') && !is_other_field(line) {
            return Err(format!("the stream has a line that is no field: {line:.40}"));
        }
    }
    if data.is_empty() { Ok(stream) } else { Err("the stream ends within an event".to_owned()) }
}

fn is_other_field(line: &str) -> bool {
    ["event:", "id:", "retry:"].iter().any(|field| line.starts_with(field))
}

// === impl Stream ===

impl Stream {
    /// Takes the data of one event.
    fn takes(&mut self, data: &str) -> Result<(), String> {
        if self.done {
            return Err("the stream goes on after [DONE]".to_owned());
        }
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Value =
            data.parse().map_err(|_| format!("the stream has an event that is no JSON: {data:.40}"))?;
        if chunk["object"] != "chat.completion.chunk" {
            return Err(format!("the stream has an event that is no chunk: {data:.80}"));
        }
        let choice = &chunk["choices"][0];
        self.content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        Ok(())
    }

    fn completion(self) -> Value {
        let message = json!({ "role": "assistant", "content": self.content });
        let choice = json!({ "index": 0, "message": message, "finish_reason": self.finish_reason });
        json!({ "object": "chat.completion", "choices": [choice], "usage": self.usage })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::judged;
    use crate::market::call::Answer;
    use crate::market::instance::{CallRow, Verdict};

    fn judge(status: u16, content_type: &'static str, body: &str, streamed: bool) -> CallRow {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: Some(HeaderValue::from_static(content_type)),
            body: body.to_owned().into(),
        };
        judged(&answer, CallRow { streamed, ..CallRow::default() })
    }

    fn chunk(content: &str, finish_reason: &str) -> String {
        format!(
            r#"data: {{"object":"chat.completion.chunk","choices":[{{"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#
        ) + "\n\n"
    }

    const WHOLE: &str = r#"{"object":"chat.completion","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

    #[test]
    fn a_completion_that_says_something_is_good() {
        let row = judge(200, "application/json", WHOLE, false);
        assert_eq!(
            (row.verdict, row.prompt_tokens, row.completion_tokens),
            (Verdict::Good, Some(3), Some(1))
        );
        let usage = "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
        let stream =
            [": ping\n\n", &chunk("a ", "null"), &chunk("b", "\"stop\""), usage, "data: [DONE]\n\n"].concat();
        for stream in [stream.clone(), stream.replace('\n', "\r\n"), stream.replace('\n', "\r")] {
            let row = judge(200, "text/event-stream; charset=utf-8", &stream, true);
            assert_eq!((row.verdict, row.completion_tokens), (Verdict::Good, Some(2)), "{:?}", row.why);
        }
    }

    #[test]
    fn one_that_says_nothing_is_bad() {
        let row = judge(200, "application/json", &WHOLE.replace("hi", " "), false);
        assert_eq!((row.verdict, row.completion_tokens), (Verdict::Bad, Some(1)));
        let stream = [&chunk("", "\"stop\""), "data: [DONE]\n\n"].concat();
        assert_eq!(judge(200, "text/event-stream", &stream, true).verdict, Verdict::Bad);
    }

    #[test]
    fn all_else_has_failed() {
        let good = [&chunk("a", "\"stop\""), "data: [DONE]\n\n"].concat();
        let chunk_alone = chunk("a", "\"stop\"");
        let cases = [
            (401, "application/json", WHOLE.to_owned(), false, "401"),
            (201, "application/json", WHOLE.to_owned(), false, "201"),
            (200, "application/json", "{".to_owned(), false, "no JSON"),
            (200, "application/json", "{}".to_owned(), false, "no chat.completion"),
            (200, "application/json", WHOLE.replace("\"stop\"", "null"), false, "finish_reason"),
            (200, "application/json", WHOLE.to_owned(), true, "not an event stream"),
            (500, "text/event-stream", good.clone(), true, "500"),
            (200, "text/event-stream", chunk_alone.clone(), true, "[DONE]"),
            (
                200,
                "text/event-stream",
                [chunk("a", "null"), "data: [DONE]\n\n".into()].concat(),
                true,
                "finish_reason",
            ),
            (200, "text/event-stream", chunk_alone.replace("data: ", ""), true, "no field"),
            (200, "text/event-stream", [&good[..], &chunk_alone].concat(), true, "after [DONE]"),
            (200, "text/event-stream", good.replace("{\"object", "{object"), true, "no JSON"),
            (200, "text/event-stream", good.replace(".chunk", ""), true, "no chunk"),
            (200, "text/event-stream", good.trim_end().to_owned(), true, "within an event"),
            // Chunks glued together, as the first provider sent them.
            (
                200,
                "application/json",
                r#"{"object":"chat.completion.chunk"}{}"#.to_owned(),
                true,
                "event stream",
            ),
        ];
        for (status, content_type, body, streamed, why) in cases {
            let row = judge(status, content_type, &body, streamed);
            assert_eq!(row.verdict, Verdict::Failed, "{body}");
            assert!(row.why.as_deref().unwrap().contains(why), "{body}: {:?}", row.why);
        }
    }
}
