//! The calls to the market: what each sends, and what it gives.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use sluice_core::money::NanoUsd;
use url::Url;
use url::form_urlencoded::Serializer;

use super::contract::{
    Balance, ChatMessage, INSTANCES_MAX, Instance, InstanceId, Listed, MESSAGES_MAX, PROPOSALS_MAX, Profile,
    Proposal,
};
use super::error::{Detail, MarketError};
use super::transport::{Body, Request, Transport};
pub(crate) use super::transport::{ClientError, Credential};
use super::wire;
use crate::config::Secret;

/// Characters of a credential at most.
const CREDENTIAL_CHARS_MAX: usize = 8 * 1024;

/// Sends to one market.
pub(crate) struct Client {
    transport: Transport,
}

/// A new account.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    pub(crate) email: &'a str,
    pub(crate) username: &'a str,
    pub(crate) full_name: &'a str,
    pub(crate) password: &'a Secret,
}

/// What a login has given.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) token: Secret,
    /// In milliseconds since the Unix epoch, where the token says so.
    pub(crate) expires_ms: Option<u64>,
}

/// What we offer for a job.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    /// Where the market sends the job, if we win.
    pub(crate) endpoint: &'a Url,
    pub(crate) max_bid: NanoUsd,
    /// What the market shows there.
    pub(crate) endpoint_api_key: &'a Secret,
}

#[derive(Serialize)]
struct OfferBody<'a> {
    endpoint: &'a str,
    max_bid: &'a RawValue,
    endpoint_api_key: &'a str,
}

#[derive(Serialize)]
struct DepositBody<'a> {
    amount: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl Client {
    /// # Errors
    ///
    /// Where no client can be set up.
    pub(crate) fn new(base_url: &Url, tls: ClientConfig) -> Result<Client, ClientError> {
        Ok(Client { transport: Transport::new(base_url, tls)? })
    }

    /// Makes an account.
    ///
    /// # Errors
    ///
    /// [`MarketError`], as of all calls.
    pub(crate) async fn register(&self, new: &Registration<'_>) -> Result<(), MarketError> {
        let body = json!({
            "email": new.email,
            "username": new.username,
            "fullname": new.full_name,
            "password": new.password.reveal(),
        });
        let request = Request::post("/v1/auth/register", Body::Json(body.to_string()));
        self.transport.send(request.hiding(new.password)).await.map(drop)
    }

    /// Logs in.
    pub(crate) async fn login(&self, username: &str, password: &Secret) -> Result<Login, MarketError> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
        }
        let form = Serializer::new(String::new())
            .append_pair("username", username)
            .append_pair("password", password.reveal())
            .finish();
        let request = Request::post("/v1/auth/login", Body::Form(form)).hiding(password);
        let answer: Answer = parsed(&self.transport.send(request).await?)?;
        let token = credential(&answer.access_token)?;
        Ok(Login { expires_ms: expiry_ms(token.reveal()), token })
    }

    /// Who is logged in.
    pub(crate) async fn me(&self, who: &Credential) -> Result<Profile, MarketError> {
        let body = self.transport.send(Request::get("/v1/auth/users/me/").by(who)).await?;
        let body: serde_json::Value = parsed(&body)?;
        let text = |key: &str| body[key].as_str().map(|text| wire::printable(text, 100));
        Ok(Profile { username: text("username"), email: text("email") })
    }

    /// Makes an API key, which the market shows this once.
    pub(crate) async fn create_api_key(&self, who: &Credential, name: &str) -> Result<Secret, MarketError> {
        #[derive(Deserialize)]
        struct Answer {
            api_key: String,
        }
        let query =
            Serializer::new(String::new()).append_pair("name", name).append_pair("is_live", "true").finish();
        let request = Request::post("/v1/auth/create-api-key", Body::None).by(who).asking(query);
        let answer: Answer = parsed(&self.transport.send(request).await?)?;
        credential(&answer.api_key)
    }

    /// Begins to pay money in; gives the page on which a person pays.
    pub(crate) async fn deposit(
        &self,
        who: &Credential,
        amount: NanoUsd,
        description: Option<&str>,
    ) -> Result<Url, MarketError> {
        #[derive(Deserialize)]
        struct Answer {
            url: Url,
        }
        let body = DepositBody { amount: &number(amount)?, description };
        let request = Request::post("/v1/payment/deposit", Body::of(&body)?).by(who);
        let answer: Answer = parsed(&self.transport.send(request).await?)?;
        match answer.url.scheme() {
            "https" | "http" => Ok(answer.url),
            _ => Err(MarketError::Garbage { why: "the page to pay on is no web page" }),
        }
    }

    /// What is on the account. Whether an API key may ask is not documented: a token may.
    pub(crate) async fn balance(&self, who: &Credential) -> Result<Balance, MarketError> {
        let body = self.transport.send(Request::get("/v1/payment/balance").by(who)).await?;
        one(&body, Balance::read)
    }

    /// Jobs that take bids, the first [`INSTANCES_MAX`].
    pub(crate) async fn open_instances(&self, who: &Credential) -> Result<Listed<Instance>, MarketError> {
        let request = Request::get("/v1/instances/").by(who).asking("instance_status=0".into());
        listed(&self.transport.send(request).await?, INSTANCES_MAX, Instance::read)
    }

    /// One job, as it is now.
    pub(crate) async fn instance(&self, who: &Credential, id: &InstanceId) -> Result<Instance, MarketError> {
        let path = format!("/v1/instances/{id}");
        let body = self.transport.send(Request::get(&path).by(who)).await?;
        let instance = one(&body, Instance::read)?;
        if instance.id == *id {
            return Ok(instance);
        }
        Err(MarketError::Garbage { why: "it is about another instance" })
    }

    /// All bids that we ever made, the first [`PROPOSALS_MAX`] of them.
    pub(crate) async fn my_proposals(&self, who: &Credential) -> Result<Listed<Proposal>, MarketError> {
        let request = Request::get("/v1/proposals/").by(who);
        listed(&self.transport.send(request).await?, PROPOSALS_MAX, Proposal::read)
    }

    /// Bids. After [`MarketError::Unreachable`], [`MarketError::Timeout`] and [`MarketError::Server`] the
    /// bid may stand: only [`Client::my_proposals`] says.
    pub(crate) async fn create_proposal(
        &self,
        who: &Credential,
        id: &InstanceId,
        offer: &Offer<'_>,
    ) -> Result<(), MarketError> {
        let path = format!("/v1/proposals/create/for-instance/{id}");
        let key = offer.endpoint_api_key;
        let endpoint = offer.endpoint.as_str();
        let body = OfferBody { endpoint, max_bid: &number(offer.max_bid)?, endpoint_api_key: key.reveal() };
        self.transport.send(Request::post(&path, Body::of(&body)?).by(who).hiding(key)).await.map(drop)
    }

    /// The messages of a job that is done in a chat, the first [`MESSAGES_MAX`].
    pub(crate) async fn chat(
        &self,
        who: &Credential,
        id: &InstanceId,
    ) -> Result<Listed<ChatMessage>, MarketError> {
        let path = format!("/v1/chat/{id}");
        let body = self.transport.send(Request::get(&path).by(who)).await?;
        listed(&body, MESSAGES_MAX, ChatMessage::read).map_err(|error| {
            // A chat that is not there is said with a status of success.
            let detail = Detail::read(&body, &[who.secret().reveal()]);
            if detail.as_str().is_empty() { error } else { MarketError::Refused { status: 200, detail } }
        })
    }

    /// Writes a message there, which is how such a job is delivered.
    pub(crate) async fn send_message(
        &self,
        who: &Credential,
        id: &InstanceId,
        message: &str,
    ) -> Result<(), MarketError> {
        let path = format!("/v1/chat/send-message/{id}");
        let body = Body::Json(json!({"message": message}).to_string());
        self.transport.send(Request::post(&path, body).by(who)).await.map(drop)
    }
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, MarketError> {
    serde_json::from_slice(body).map_err(|_| MarketError::Garbage { why: "it has another form" })
}

fn one<T>(body: &[u8], read: impl Fn(&RawValue) -> Option<T>) -> Result<T, MarketError> {
    read(parsed(body)?).ok_or(MarketError::Garbage { why: "it has another form" })
}

fn listed<'a, T>(
    body: &'a [u8],
    max: usize,
    read: impl Fn(&'a RawValue) -> Option<T>,
) -> Result<Listed<T>, MarketError> {
    wire::list(body, max, read).ok_or(MarketError::Garbage { why: "it is no list" })
}

/// A credential that the market has made: it has to fit into a header.
fn credential(text: &str) -> Result<Secret, MarketError> {
    let visible = text.len() <= CREDENTIAL_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    let secret = Secret::new(text).filter(|_| visible);
    secret.ok_or(MarketError::Garbage { why: "its credential cannot be sent back" })
}

/// An amount as a number of JSON, exactly.
fn number(amount: NanoUsd) -> Result<Box<RawValue>, MarketError> {
    let unsendable = |_| MarketError::Garbage { why: "it cannot be written as JSON" };
    RawValue::from_string(amount.to_string()).map_err(unsendable)
}

/// What a JSON Web Token says of its end. It is not verified: the market does that.
fn expiry_ms(token: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims<'a> {
        #[serde(borrow)]
        exp: &'a RawValue,
    }
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let claims: Claims<'_> = serde_json::from_slice(&claims).ok()?;
    // Seconds, as billionths.
    wire::nanos(claims.exp).map(|seconds| seconds / 1_000_000)
}

#[cfg(test)]
mod tests;
