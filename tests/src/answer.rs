//! One answer over HTTP, read whole.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use serde_json::Value;

/// Status, head and body of an answer.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Reads the rest of a response.
    ///
    /// # Errors
    ///
    /// Where the body does not arrive whole.
    pub async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
        let (status, version, headers) = (response.status(), response.version(), response.headers().clone());
        Ok(Answer { status, version, headers, body: response.bytes().await? })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The text of a completion that was not streamed.
    pub fn content(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// The data of a stream's events, in order; only for streams with plain line ends.
    pub fn events(&self) -> Vec<String> {
        let text = self.text();
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// Checks what every refusal keeps to: OpenAI's envelope, an id, this status and code.
    /// Gives the message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        let envelope = self.json();
        let members: Vec<&String> = envelope.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["error"], "{self:?}");
        let error = &envelope["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        assert!(error["param"].is_string() || error["param"].is_null(), "{self:?}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{self:?}");
        message.to_owned()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.text().chars().take(2_000).collect();
        write!(f, "{:?} {}\n{:#?}\n{body}", self.version, self.status, self.headers)
    }
}
