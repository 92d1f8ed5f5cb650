//! Jobs that are done by messages: what the requester writes is answered by the model, as the job's
//! calls would be, and with its money.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustls::ClientConfig;
use serde_json::{Value, json};
use sluice_ledger::market::{Job, State};
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

use super::bidder::{Bidder, Link};
use super::contract::{ChatMessage, Instance, InstanceId, Sender};
use super::endpoint;
use super::error::MarketError;
use crate::config::{self, Secret};
use crate::money::unix_ms;

/// Answers that are made at once.
const AT_ONCE: usize = 8;

/// Messages of ours in one chat: whoever goes on is not answered for ever.
const ANSWERS_MAX: usize = 32;

/// Answers that are being made, by job.
#[derive(Default)]
pub(super) struct Threads {
    tasks: JoinSet<()>,
    by_job: HashMap<String, Turn>,
}

/// When a job's chat was looked at, and who does.
struct Turn {
    at: Instant,
    task: AbortHandle,
    made: Arc<Mutex<Made>>,
}

/// Answers that were paid for.
#[derive(Default)]
struct Made {
    /// The job is done by calls, and nobody waits in its chat.
    by_calls: bool,
    count: usize,
    /// One that the market has not taken yet; it is not made again.
    undelivered: Option<String>,
}

/// How the job's completions are asked for.
struct Us {
    endpoint: Url,
    tls: ClientConfig,
    key: Secret,
    model: String,
}

impl Bidder {
    /// Looks at the chats of jobs that are ours, and answers who waits. Does not wait for the answers.
    pub(super) fn answer_threads(&mut self, link: &Link, market: &config::Market) {
        while self.threads.tasks.try_join_next().is_some() {}
        let Some(endpoint) = &market.endpoint else { return };
        let now_ms = unix_ms();
        let ours = self.jobs.list(|job| job.state == State::Won && job.due_ms > now_ms);
        self.threads.by_job.retain(|id, _| ours.iter().any(|job| job.id == *id));
        let due = |job: &Job| {
            let turn = self.threads.by_job.get(&job.id);
            let rests = |turn: &Turn| turn.at.elapsed() < market.scan_every || lock(&turn.made).by_calls;
            turn.is_none_or(|turn| turn.task.is_finished() && !rests(turn))
        };
        let due: Vec<Job> = ours.into_iter().filter(due).collect();
        for job in due {
            if self.threads.tasks.len() >= AT_ONCE {
                break;
            }
            let Ok(id) = job.id.parse::<InstanceId>() else { continue };
            let Some(key) = Secret::new(&self.jobs.passes().make(&job.id)) else { continue };
            let (link, model, tls) = (link.clone(), job.model, self.tls.clone());
            let us = Us { endpoint: endpoint.clone(), tls, key, model };
            let before = self.threads.by_job.get(&job.id);
            let made = before.map_or_else(Arc::default, |turn| Arc::clone(&turn.made));
            let kept = Arc::clone(&made);
            let name = job.id.clone();
            let task = self.threads.tasks.spawn(async move {
                if let Err(error) = turn(&link, &id, us, &kept).await {
                    tracing::debug!(job = job.id, %error, "a chat goes on later");
                }
            });
            self.threads.by_job.insert(name, Turn { at: Instant::now(), task, made });
        }
    }
}

/// One look at a chat: whoever wrote last waits for the other.
async fn turn(link: &Link, id: &InstanceId, us: Us, made: &Mutex<Made>) -> Result<(), MarketError> {
    let instance = link.client.instance(&link.who, id).await?;
    if !instance.is_agent {
        lock(made).by_calls = true;
        return Ok(());
    }
    let said = link.client.chat(&link.who, id).await?.items;
    let Some(messages) = asked(&instance, &said) else {
        lock(made).undelivered = None;
        return Ok(());
    };
    let undelivered = lock(made).undelivered.clone();
    let text = match undelivered {
        Some(text) => text,
        None if lock(made).count >= ANSWERS_MAX => return Ok(()),
        None => {
            let body = json!({ "model": us.model, "messages": messages });
            let Some(text) = endpoint::complete(&us.endpoint, us.tls, &us.key, &body).await else {
                lock(made).count += 1;
                return Ok(());
            };
            let mut made = lock(made);
            made.count += 1;
            made.undelivered = Some(text.clone());
            text
        }
    };
    link.client.send_message(&link.who, id, &text).await?;
    lock(made).undelivered = None;
    Ok(())
}

/// What a panic leaves behind is an answer that is made again.
fn lock(made: &Mutex<Made>) -> MutexGuard<'_, Made> {
    made.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The conversation, as a model is shown it; none where nobody waits for us.
fn asked(instance: &Instance, said: &[ChatMessage]) -> Option<Value> {
    let ours = said.iter().filter(|message| message.sender == Sender::Provider).count();
    let waits = said.last().is_none_or(|message| message.sender != Sender::Provider);
    if !waits || ours >= ANSWERS_MAX {
        return None;
    }
    let told = instance.messages.as_ref().and_then(|raw| serde_json::from_str::<Vec<Value>>(raw.get()).ok());
    let told = told.unwrap_or_else(|| vec![json!({"role": "user", "content": instance.background})]);
    let said = said.iter().map(|message| {
        let role = if message.sender == Sender::Provider { "assistant" } else { "user" };
        json!({"role": role, "content": message.message})
    });
    Some(told.into_iter().chain(said).collect())
}

#[cfg(test)]
mod tests {
    use sluice_core::money::NanoUsd;

    use super::super::contract::InstanceStatus;
    use super::*;

    fn instance() -> Instance {
        Instance {
            id: "a".parse().unwrap(),
            background: "Mend it.".into(),
            credit: NanoUsd::ZERO,
            status: InstanceStatus::Resolved,
            closes_at_ms: None,
            reward_due_at_ms: None,
            messages: None,
            max_tokens: None,
            stream: None,
            gen_reward: None,
            percentage_reward: None,
            is_agent: true,
        }
    }

    fn says(sender: Sender, message: &str) -> ChatMessage {
        ChatMessage { sender, message: message.into(), at_ms: None }
    }

    #[test]
    fn who_waits_is_shown_the_whole_conversation_and_nobody_answers_himself() {
        let first = asked(&instance(), &[]).unwrap();
        assert_eq!(first, json!([{"role": "user", "content": "Mend it."}]));
        let ours = says(Sender::Provider, "Done.");
        assert_eq!(asked(&instance(), std::slice::from_ref(&ours)), None);
        let more = asked(&instance(), &[ours, says(Sender::Requester, "And this?")]).unwrap();
        assert_eq!(more[1], json!({"role": "assistant", "content": "Done."}));
        assert_eq!(more[2], json!({"role": "user", "content": "And this?"}));
        let endless: Vec<ChatMessage> = (0..ANSWERS_MAX)
            .flat_map(|_| [says(Sender::Provider, "x"), says(Sender::Requester, "y")])
            .collect();
        assert_eq!(asked(&instance(), &endless), None);
    }
}
