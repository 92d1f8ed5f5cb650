//! What operators see and do of keys and money: JSON in, JSON out.

mod queries;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_core::money::NanoUsd;
use sluice_ledger::audit::Act;
use sluice_ledger::budget::Scopes;
use sluice_ledger::doubt::{Charge, Doubt, InDoubt, Remainder, Resolved};
use sluice_ledger::keys::acts::{Created, Revoked, Rotated};
use sluice_ledger::keys::secret::KeyId;
use sluice_ledger::keys::terms::Draft;
use sluice_ledger::keys::{KeyError, KeyRecord, KeyStore};
use sluice_ledger::runs::RunId;
use sluice_ledger::runs::acts::{Closed, RunStanding};
use sluice_ledger::usage::Answer;
use url::form_urlencoded;

use crate::key_book::{Done, KeyBook};
use crate::money::{Money, unix_ms};
use crate::refusal::Refusal;

use queries::{runs_query, usage_query};

/// Rows of a list where nothing else is asked for.
const ROWS: u32 = 1000;

/// Grace of a rotated key at most: 30 days.
const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Characters of what an act was on, where a path names it.
const SUBJECT_CHARS_MAX: usize = 256;

/// An operator's wish, and who it is.
pub(crate) struct Desk<'a> {
    pub(crate) money: &'a Arc<Money>,
    pub(crate) keys: &'a Arc<KeyBook>,
    pub(crate) actor: String,
    /// Whose accounts the budgets have.
    pub(crate) scopes: Scopes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grace {
    #[serde(default)]
    grace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    charge_usd: String,
    /// It is meant, though it is more than what was held.
    #[serde(default)]
    beyond: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfRun {
    /// The key's id; without one, the run of callers that show none.
    #[serde(default)]
    key: String,
    run: String,
}

impl Desk<'_> {
    pub(crate) async fn keys(&self) -> Result<Value, Refusal> {
        let listed = self.act(|store| Ok(store.list()?)).await?;
        let keys: Vec<Value> = listed.records.iter().map(key_row).collect();
        Ok(json!({ "keys": keys }))
    }

    pub(crate) async fn create(&self, body: &[u8]) -> Result<Value, Refusal> {
        let draft: Draft = parse(body)?;
        let actor = self.actor.clone();
        let done = self.done(move |store| store.create(&actor, &draft, unix_ms())).await?;
        match done.what {
            Created::Done { key, record, .. } => {
                let mut row = key_row(&record);
                row["key"] = key.reveal().into();
                row["in_force"] = done.holds.into();
                Ok(row)
            }
            Created::NameTaken => Err(conflict("name_taken", "A key that is not revoked has this name.")),
        }
    }

    pub(crate) async fn revoke(&self, id: &str) -> Result<Value, Refusal> {
        let (id, actor) = (key_id(id)?, self.actor.clone());
        let done = self.done(move |store| store.revoke(&actor, id, unix_ms())).await?;
        match done.what {
            Revoked::Done { .. } => Ok(json!({"id": id.as_str(), "revoked": true, "in_force": done.holds})),
            Revoked::Already { since_ms } => Err(conflict(
                "already_revoked",
                &format!("The key was revoked before, at {}.", time(since_ms)),
            )),
            Revoked::Unknown => Err(no_key()),
        }
    }

    pub(crate) async fn rotate(&self, id: &str, body: &[u8]) -> Result<Value, Refusal> {
        let (id, actor) = (key_id(id)?, self.actor.clone());
        let asked: Grace = if body.is_empty() { Grace { grace: None } } else { parse(body)? };
        let grace = match asked.grace.as_deref().map(humantime::parse_duration) {
            None => Duration::ZERO,
            Some(Ok(grace)) if grace <= GRACE_MAX => grace,
            Some(_) => return Err(wrong("grace: wanted a time up to \"30d\", such as \"1h\"")),
        };
        let done = self.done(move |store| store.rotate(&actor, id, grace, unix_ms())).await?;
        match done.what {
            Rotated::Done { key, until_ms, .. } => Ok(json!({
                "id": id.as_str(), "key": key.reveal(), "before_works_until": time(until_ms),
                "in_force": done.holds,
            })),
            Rotated::Revoked => Err(conflict("already_revoked", "The key was revoked.")),
            Rotated::Expired => Err(conflict("expired", "The key has expired.")),
            Rotated::Unknown => Err(no_key()),
        }
    }

    pub(crate) async fn audit(&self, query: &str) -> Result<Value, Refusal> {
        let before = named(query, "before").map(|text| text.parse::<i64>());
        let before = before.transpose().map_err(|_| wrong("before: wanted the id of an act"))?;
        let acts = self.act(move |store| Ok(store.store().acts(ROWS as usize, before)?)).await?;
        let row = |entry: &sluice_ledger::audit::Entry| {
            let detail: Value = serde_json::from_str(&entry.detail).unwrap_or_default();
            json!({
                "id": entry.id, "at": time(entry.at_ms), "actor": entry.actor, "act": entry.act,
                "subject": entry.subject, "detail": detail, "outcome": entry.outcome,
            })
        };
        Ok(json!({"acts": acts.iter().map(row).collect::<Vec<_>>()}))
    }

    pub(crate) async fn usage(&self, query: &str) -> Result<Value, Refusal> {
        let asked = usage_query(query)?;
        let answer = self.act(move |store| Ok(store.store().usage(&asked)?)).await?;
        Ok(usage_rows(&answer))
    }

    pub(crate) async fn budgets(&self) -> Result<Value, Refusal> {
        let accounts = self.act(|store| Ok(store.store().accounts(None, ROWS)?)).await?;
        let row = |standing: &sluice_ledger::usage::Standing| {
            let (key, vault) = (&standing.key, &standing.vault);
            json!({
                "budget": *key.budget, "scope": *key.scope, "window_start": time(key.start_s.unsigned_abs() * 1000),
                "settled_usd": vault.settled.to_string(), "in_doubt_usd": vault.in_doubt.to_string(),
                "leased_usd": vault.leased.to_string(), "closed": standing.closed,
            })
        };
        Ok(json!({"accounts": accounts.iter().map(row).collect::<Vec<_>>()}))
    }

    pub(crate) async fn runs(&self, query: &str) -> Result<Value, Refusal> {
        let (key, ended_too) = runs_query(query)?;
        // One more than is shown tells whether there are more.
        let runs = self.act(move |store| Ok(store.store().runs(key.as_deref(), ended_too, ROWS + 1)?));
        let runs = runs.await?;
        let shown: Vec<Value> = runs.iter().take(ROWS as usize).map(run_row).collect();
        Ok(json!({"cut": runs.len() > shown.len(), "runs": shown}))
    }

    pub(crate) async fn close_run(&self, body: &[u8]) -> Result<Value, Refusal> {
        let OfRun { key, run } = parse(body)?;
        let wanted = "wanted a key's id, and a run's name of 1 to 128 visible ASCII characters";
        let id = RunId::new(&key, &run).ok_or_else(|| wrong(wanted))?;
        let actor = self.actor.clone();
        match self.act(move |store| Ok(store.store().close_run(&actor, &id, unix_ms())?)).await? {
            Closed::Done { .. } => {
                let money = Arc::clone(self.money);
                // Whoever is answered next is refused. A ledger in trouble refuses everybody.
                let flushed = tokio::task::spawn_blocking(move || money.spending.flush());
                let _ = flushed.await;
                Ok(json!({"key": key, "run": run, "closed": true}))
            }
            Closed::Already { ended_s, by } => {
                let text = format!("The run has ended before ({}), at {}.", by.name(), seconds(ended_s));
                Err(conflict("already_ended", &text))
            }
            Closed::Unknown => Err(Refusal::Admin {
                status: StatusCode::NOT_FOUND,
                code: "unknown_run",
                text: "No budget has an account for this run; GET /admin/v1/runs lists those that there are."
                    .into(),
            }),
        }
    }

    pub(crate) async fn doubts(&self) -> Result<Value, Refusal> {
        let both = self.act(|store| Ok((store.store().doubts(ROWS)?, store.store().remainders()?)));
        let (doubts, remainders) = both.await?;
        let row = |doubt: &Doubt| {
            let accounts =
                doubt.accounts.iter().map(|(_, key)| json!({"budget": *key.budget, "scope": *key.scope}));
            json!({
                "id": doubt.id.0, "request": doubt.request, "attempt": doubt.attempt,
                "held_usd": doubt.amount.to_string(), "since": time(doubt.since_ms),
                "accounts": accounts.collect::<Vec<_>>(),
            })
        };
        let rest = |rest: &Remainder| {
            json!({
                "id": InDoubt::Rest(rest.account).to_string(), "in_doubt_usd": rest.amount.to_string(),
                "budget": *rest.key.budget, "scope": *rest.key.scope, "window_start": seconds(rest.key.start_s),
            })
        };
        Ok(json!({
            "in_doubt": doubts.iter().map(row).collect::<Vec<_>>(),
            "rests": remainders.iter().take(ROWS as usize).map(rest).collect::<Vec<_>>(),
        }))
    }

    pub(crate) async fn resolve(&self, id: &str, body: &[u8]) -> Result<Value, Refusal> {
        let what: InDoubt = id.parse().map_err(|error| wrong(format!("{id}: {error}")))?;
        let Verdict { charge_usd, beyond } = parse(body)?;
        let charge: NanoUsd = charge_usd.parse().map_err(|error| wrong(format!("charge_usd: {error}")))?;
        let (actor, scopes) = (self.actor.clone(), self.scopes.clone());
        let resolved = self.act(move |store| {
            let detail = json!({"charge_usd": charge.to_string()});
            let subject = what.to_string();
            let act = Act {
                at_ms: unix_ms(),
                actor: &actor,
                act: "doubt.resolve",
                subject: &subject,
                detail: &detail,
                outcome: "done",
            };
            let charge = if beyond { Charge::Any(charge) } else { Charge::Within(charge) };
            let resolved = store.store().resolve(what, charge, &scopes, &|batch| batch.add_act(&act))?;
            if !matches!(resolved, Resolved::Done { .. }) {
                store.store().add_act(&Act { outcome: resolved.outcome(), ..act })?;
            }
            Ok(resolved)
        });
        match resolved.await? {
            Resolved::Done { held } => Ok(json!({"id": id, "held_usd": held.to_string(), "resolved": true})),
            Resolved::Beyond { held } => Err(wrong(format!(
                "charge_usd: {held} USD are in doubt; where more was charged, say so with \"beyond\": true"
            ))),
            Resolved::Already => Err(conflict("already_resolved", "It was resolved before.")),
            Resolved::Unknown => Err(Refusal::Admin {
                status: StatusCode::NOT_FOUND,
                code: "unknown_doubt",
                text: "Nothing of this number is in doubt.".into(),
            }),
        }
    }

    /// Writes down an act on something else than keys and money. It is done by then, whatever becomes of
    /// its row.
    pub(crate) async fn note(&self, act: &'static str, subject: &str, outcome: &'static str) {
        let actor = self.actor.clone();
        let subject: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
        let noted = self.act(move |store| {
            let (actor, subject, detail) = (&actor, &subject, &json!({}));
            Ok(store.store().add_act(&Act { at_ms: unix_ms(), actor, act, subject, detail, outcome })?)
        });
        if let Err(refusal) = noted.await {
            tracing::error!(act, outcome, reason = refusal.code(), "an act is not in the audit");
        }
    }

    pub(crate) async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut KeyStore) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, Refusal> {
        Ok(self.done(act).await?.what)
    }

    async fn done<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut KeyStore) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<Done<T>, Refusal> {
        self.keys.act(act).await.map_err(|error| match error {
            KeyError::Terms(error) => wrong(error.to_string()),
            KeyError::Store(error) => Refusal::Ledger { reason: error.code() },
            KeyError::Chance(_) | KeyError::Lock(_) => Refusal::Ledger { reason: "broken" },
        })
    }
}

fn run_row(standing: &RunStanding) -> Value {
    let ended = standing.ended;
    json!({
        "key": standing.run.key(), "run": standing.run.name(), "budget": standing.budget,
        "state": ended.map_or("open", |(_, by)| by.name()),
        "used": seconds(standing.used_s), "ended": ended.map(|(ended_s, _)| seconds(ended_s)),
        "spent_usd": standing.spent.to_string(),
    })
}

fn usage_rows(answer: &Answer) -> Value {
    let row = |sum: &sluice_ledger::usage::Sum| {
        let mut row = json!({
            "calls": sum.calls, "input_tokens": sum.input, "output_tokens": sum.output,
            "cost_usd": sum.cost.to_string(),
        });
        for (by, name) in answer.by.iter().zip(&sum.names) {
            row[by.name()] = name.as_str().into();
        }
        row
    };
    json!({"usage": answer.rows.iter().map(row).collect::<Vec<_>>(), "cut": answer.cut})
}

/// A key as operators see it, without its secret.
pub(crate) fn key_row(record: &KeyRecord) -> Value {
    let mut row = serde_json::to_value(record.terms.draft()).unwrap_or_default();
    row["id"] = record.id.as_str().into();
    row["created"] = time(record.created_ms).into();
    row["revoked"] = record.revoked_ms.map(time).into();
    row
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| wrong(format!("The body: {error}.")))
}

fn named(query: &str, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn key_id(text: &str) -> Result<KeyId, Refusal> {
    text.parse().map_err(|_| no_key())
}

fn no_key() -> Refusal {
    missing("unknown_key", "There is no key of this id; GET /admin/v1/keys lists those that there are.")
}

pub(crate) fn missing(code: &'static str, text: &str) -> Refusal {
    Refusal::Admin { status: StatusCode::NOT_FOUND, code, text: text.into() }
}

fn conflict(code: &'static str, text: &str) -> Refusal {
    Refusal::Admin { status: StatusCode::CONFLICT, code, text: text.into() }
}

pub(crate) fn wrong(text: impl Into<String>) -> Refusal {
    Refusal::Admin { status: StatusCode::BAD_REQUEST, code: "invalid_request", text: text.into() }
}

fn seconds(at_s: i64) -> String {
    time(u64::try_from(at_s).unwrap_or(0).saturating_mul(1000))
}

/// As RFC 3339 has it, to the millisecond.
pub(crate) fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
