//! Keys in a database that several processes have open.

mod secrecy;
mod watching;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::acts::{Created, Revoked, Rotated};
use super::ring::{Ring, Stranger};
use super::secret::{Digest, NewKey, Shown};
use super::terms::{BudgetDraft, Draft};
use super::watch::Seen;
use super::*;
use crate::audit::Entry;
use crate::lock::DataLock;

const NOW_MS: u64 = 1_700_000_000_000;

const MINUTE: Duration = Duration::from_secs(60);
const MINUTE_MS: u64 = 60_000;

struct Keys {
    folder: TempDir,
    store: KeyStore,
}

impl Keys {
    fn new() -> Keys {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        Keys { folder, store }
    }

    /// Another process.
    fn other(&self) -> KeyStore {
        open(&self.folder)
    }

    fn create(&mut self, name: &str) -> (KeyId, String) {
        created(&mut self.store, &named(name))
    }

    fn rotate(&mut self, id: KeyId, grace: Duration, now_ms: u64) -> (String, u64) {
        match self.store.rotate("cli", id, grace, now_ms).unwrap() {
            Rotated::Done { key, until_ms, .. } => (key.reveal(), until_ms),
            refused => panic!("{refused:?}"),
        }
    }

    fn revoke(&mut self, id: KeyId) -> Revoked {
        self.store.revoke("cli", id, NOW_MS + 1).unwrap()
    }

    fn ring(&self) -> Ring {
        self.other().changed().unwrap().unwrap()
    }

    fn who(&self, token: &str, now_ms: u64) -> Result<KeyId, Stranger> {
        self.ring().identify(token, now_ms).map(|key| key.id())
    }

    fn audit(&mut self) -> Vec<Entry> {
        let mut entries = self.store.store().acts(100, None).unwrap();
        entries.reverse();
        entries
    }

    fn run(&self, statement: &str) {
        self.other().store().connection().execute_batch(statement).unwrap();
    }
}

fn open(folder: &TempDir) -> KeyStore {
    KeyStore::open(&folder.path().join("sluice.db")).unwrap()
}

fn named(name: &str) -> Draft {
    Draft { name: name.to_owned(), ..Draft::default() }
}

fn created(store: &mut KeyStore, draft: &Draft) -> (KeyId, String) {
    match store.create("cli", draft, NOW_MS).unwrap() {
        Created::Done { key, record, .. } => (record.id, key.reveal()),
        Created::NameTaken => panic!("{} is taken", draft.name),
    }
}

fn stranger() -> (KeyId, String) {
    let id = KeyId::random().unwrap();
    (id, NewKey::draw(id).unwrap().reveal())
}

fn digest(token: &str) -> Digest {
    Shown::read(token).unwrap().digest()
}

/// The same key with another last character.
fn forged(token: &str) -> String {
    let last = if token.ends_with('a') { 'b' } else { 'a' };
    format!("{}{last}", &token[..token.len() - 1])
}

// --- who is identified ---

#[test]
fn a_key_is_who_it_says_and_may_do_what_was_written() {
    let mut keys = Keys::new();
    let draft = Draft {
        team: Some("red".to_owned()),
        models: vec!["gpt-*".to_owned()],
        addresses: vec!["10.0.0.0/8".to_owned()],
        requests_per_minute: Some(5),
        concurrent: Some(2),
        budgets: vec![BudgetDraft {
            cap: "2.50".parse().unwrap(),
            window: "month".to_owned(),
            zone: Some("Europe/Helsinki".to_owned()),
        }],
        ..named("ci")
    };
    let (id, token) = created(&mut keys.store, &draft);
    let key = keys.ring().identify(&token, NOW_MS).unwrap();
    assert_eq!((key.id(), key.name(), &**key.team()), (id, "ci", "red"));
    assert!(key.allows_model("gpt-4") && !key.allows_model("claude"));
    assert!(key.allows_address("::ffff:10.0.0.1".parse().unwrap()));
    assert!(!key.allows_address("192.168.0.1".parse().unwrap()));
    assert_eq!(key.terms().draft(), draft);
    assert_eq!(keys.store.list().unwrap().records[0].terms, *key.terms());
}

#[test]
fn strangers_are_told_apart_inside() {
    let mut keys = Keys::new();
    let (id, token) = keys.create("a");
    let (other, other_token) = keys.create("b");
    let swapped = format!("{}{}", &token[..22], &other_token[22..]);
    for unknown in [stranger().1, forged(&token), swapped] {
        assert_eq!(keys.who(&unknown, NOW_MS), Err(Stranger::Unknown));
    }
    for malformed in ["", "sk-sluice-", "sk-other", &token[1..], id.as_str(), &format!("{token} ")] {
        assert_eq!(keys.who(malformed, NOW_MS), Err(Stranger::Malformed), "{malformed}");
    }
    assert_eq!(keys.who(&token, NOW_MS), Ok(id));
    assert_eq!(keys.who(&other_token, NOW_MS), Ok(other));
    assert_eq!(Ring::default().identify(&token, NOW_MS), Err(Stranger::Unknown));
}

#[test]
fn a_key_expires_to_the_millisecond() {
    let mut keys = Keys::new();
    let draft = Draft { expires_ms: Some(NOW_MS + 10), ..named("short") };
    let (id, token) = created(&mut keys.store, &draft);
    assert_eq!(keys.who(&token, NOW_MS + 9), Ok(id));
    for now_ms in [NOW_MS + 10, NOW_MS + 11, u64::MAX] {
        assert_eq!(keys.who(&token, now_ms), Err(Stranger::Expired));
        assert_eq!(keys.who(&forged(&token), now_ms), Err(Stranger::Unknown), "only to who has the secret");
    }
    let rotated = |keys: &mut Keys, now_ms| keys.store.rotate("cli", id, MINUTE, now_ms).unwrap();
    assert!(matches!(rotated(&mut keys, NOW_MS + 10), Rotated::Expired));
    assert!(matches!(rotated(&mut keys, NOW_MS + 9), Rotated::Done { .. }));
}

// --- rotation ---

#[test]
fn the_secret_before_works_until_its_grace_is_over() {
    let mut keys = Keys::new();
    let (id, first) = keys.create("a");
    let (second, until_ms) = keys.rotate(id, MINUTE, NOW_MS);
    assert_eq!(until_ms, NOW_MS + MINUTE_MS);
    assert_ne!(first, second);
    let ring = keys.ring();
    let by_first = ring.identify(&first, until_ms - 1).unwrap();
    let by_second = ring.identify(&second, until_ms - 1).unwrap();
    assert!(Arc::ptr_eq(&by_first, &by_second), "one key: it shares its limits");
    for now_ms in [until_ms, until_ms + 1, u64::MAX] {
        assert_eq!(keys.who(&first, now_ms), Err(Stranger::Unknown));
        assert_eq!(keys.who(&second, now_ms), Ok(id));
    }
}

#[test]
fn a_second_rotation_ends_the_grace_of_the_first() {
    let mut keys = Keys::new();
    let (id, first) = keys.create("a");
    let (second, _) = keys.rotate(id, 10 * MINUTE, NOW_MS);
    let (third, until_ms) = keys.rotate(id, MINUTE, NOW_MS + 1);
    assert_eq!(keys.who(&first, NOW_MS + 1), Err(Stranger::Unknown));
    assert_eq!(keys.who(&second, until_ms - 1), Ok(id));
    assert_eq!(keys.who(&second, until_ms), Err(Stranger::Unknown));
    assert_eq!(keys.who(&third, until_ms), Ok(id));
}

#[test]
fn without_grace_the_secret_before_is_over_at_once() {
    let mut keys = Keys::new();
    let (id, first) = keys.create("a");
    keys.rotate(id, MINUTE, NOW_MS);
    let (third, until_ms) = keys.rotate(id, Duration::ZERO, NOW_MS + 1);
    assert_eq!(until_ms, NOW_MS + 1);
    let (fourth, _) = keys.rotate(id, Duration::from_nanos(999_999), NOW_MS + 2);
    // Also for a clock that goes back.
    for now_ms in [0, NOW_MS, NOW_MS + 2] {
        assert_eq!(keys.who(&first, now_ms), Err(Stranger::Unknown));
        assert_eq!(keys.who(&third, now_ms), Err(Stranger::Unknown));
        assert_eq!(keys.who(&fourth, now_ms), Ok(id));
    }
}

#[test]
fn a_grace_beyond_all_time_is_refused_and_nothing_changes() {
    let mut keys = Keys::new();
    let (id, token) = keys.create("a");
    for grace in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_millis(i64::MAX as u64)] {
        let refused = keys.store.rotate("cli", id, grace, NOW_MS);
        assert!(matches!(refused, Err(KeyError::Store(StoreError::Overflow))), "{refused:?}");
    }
    assert_eq!(keys.who(&token, NOW_MS), Ok(id));
    assert_eq!(keys.audit().len(), 1, "the creation alone");
}

// --- revocation ---

#[test]
fn a_revoked_key_is_refused_with_all_its_secrets() {
    let mut keys = Keys::new();
    let (id, first) = keys.create("a");
    let (second, _) = keys.rotate(id, MINUTE, NOW_MS);
    assert!(matches!(keys.revoke(id), Revoked::Done { .. }));
    for token in [&first, &second] {
        assert_eq!(keys.who(token, NOW_MS + 1), Err(Stranger::Revoked));
    }
    assert_eq!(keys.who(&forged(&second), NOW_MS + 1), Err(Stranger::Unknown));
    assert!(keys.ring().key(&id).is_none());
    assert_eq!(keys.store.list().unwrap().records[0].revoked_ms, Some(NOW_MS + 1));
}

#[test]
fn to_revoke_twice_or_nobody_is_another_answer() {
    let mut keys = Keys::new();
    let (id, _) = keys.create("a");
    assert!(matches!(keys.revoke(id), Revoked::Done { .. }));
    let again = keys.store.revoke("cli", id, NOW_MS + 5).unwrap();
    assert_eq!(again, Revoked::Already { since_ms: NOW_MS + 1 });
    assert_eq!(keys.revoke(stranger().0), Revoked::Unknown);
    let rotated = |keys: &mut Keys, id| keys.store.rotate("cli", id, MINUTE, NOW_MS).unwrap();
    assert!(matches!(rotated(&mut keys, id), Rotated::Revoked));
    assert!(matches!(rotated(&mut keys, stranger().0), Rotated::Unknown));
}

// --- names ---

#[test]
fn a_name_is_free_again_when_its_key_is_revoked() {
    let mut keys = Keys::new();
    let (first, token) = keys.create("a");
    let taken = |keys: &mut Keys, name: &str| {
        matches!(keys.store.create("cli", &named(name), NOW_MS).unwrap(), Created::NameTaken)
    };
    assert!(taken(&mut keys, "a") && taken(&mut keys, " a "));
    assert!(!taken(&mut keys, "A"));
    assert!(matches!(keys.revoke(first), Revoked::Done { .. }));
    let (second, _) = keys.create("a");
    assert!(taken(&mut keys, "a"));
    assert_ne!(first, second);
    assert_eq!(keys.who(&token, NOW_MS + 1), Err(Stranger::Revoked));
}

#[test]
fn of_fifty_who_create_a_name_at_once_one_wins() {
    const CREATORS: usize = 50;
    let keys = Keys::new();
    let start = Barrier::new(CREATORS);
    let won: usize = thread::scope(|scope| {
        let creators: Vec<_> = (0..CREATORS)
            .map(|_| {
                let (mut store, start) = (keys.other(), &start);
                scope.spawn(move || {
                    start.wait();
                    loop {
                        match store.create("cli", &named("ci"), NOW_MS) {
                            Ok(Created::Done { .. }) => break 1,
                            Ok(Created::NameTaken) => break 0,
                            // The disk is slow: the creator was never served.
                            Err(KeyError::Store(StoreError::Locked)) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                })
            })
            .collect();
        creators.into_iter().map(|creator| creator.join().unwrap()).sum()
    });
    assert_eq!(won, 1);
    let mut keys = keys;
    assert_eq!(keys.store.list().unwrap().records.len(), 1);
    let outcomes: Vec<String> = keys.audit().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes[0], "done");
    assert_eq!(outcomes[1..], vec!["name_taken".to_owned(); CREATORS - 1]);
    assert_eq!(keys.ring().generation(), 1);
}

#[test]
fn a_draft_that_is_not_in_order_is_no_act() {
    let mut keys = Keys::new();
    let blank = Draft { models: vec![String::new()], ..named("a") };
    let over = Draft { expires_ms: Some(NOW_MS), ..named("a") };
    for draft in [blank, over, named("")] {
        assert!(matches!(keys.store.create("cli", &draft, NOW_MS), Err(KeyError::Terms(_))), "{draft:?}");
    }
    assert_eq!(keys.store.list().unwrap().records.len(), 0);
    assert_eq!((keys.audit().len(), keys.ring().generation()), (0, 0));
}

// --- what is written ---

/// Rows that somebody has edited let nobody in, and keep nobody out.
#[test]
fn a_row_that_is_no_key_is_named_and_no_more() {
    let edits = [
        ("terms = json_set(terms, '$.models', json('[\"\"]'))", Some("Terms")),
        ("terms = json_set(terms, '$.addresses', json('[\" \"]'))", Some("Terms")),
        ("terms = json_set(terms, '$.models', NULL)", Some("Form")),
        ("terms = json_set(terms, '$.unknown', 1)", Some("Form")),
        ("digest = x'00'", Some("Value")),
        ("before_digest = x'00', before_until_ms = 5", Some("Value")),
        ("revoked_ms = -1", Some("Value")),
        ("created_ms = -1", Some("Value")),
        ("id = 'short'", Some("Id")),
        ("created_ms = created_ms + 1", None),
    ];
    for (edit, wanted) in edits {
        let mut keys = Keys::new();
        let (id, token) = keys.create("edited");
        let (other, other_token) = keys.create("other");
        keys.run(&format!("UPDATE keys SET {edit} WHERE id = '{id}'"));
        let ring = keys.ring();
        assert_eq!(ring.identify(&other_token, NOW_MS).unwrap().id(), other, "{edit}");
        let found = ring.unreadable().first().map(|row| format!("{:?}", row.why));
        match wanted {
            Some(wanted) => {
                assert!(found.is_some_and(|found| found.starts_with(wanted)), "{edit}");
                assert_eq!(ring.identify(&token, NOW_MS), Err(Stranger::Unknown), "{edit}");
            }
            None => assert!(found.is_none() && ring.identify(&token, NOW_MS).is_ok(), "the control"),
        }
    }
}

/// It can be ended nevertheless.
#[test]
fn a_row_that_is_no_key_can_be_revoked() {
    let mut keys = Keys::new();
    let (id, _) = keys.create("edited");
    keys.run("UPDATE keys SET terms = json_set(terms, '$.unknown', 1)");
    assert!(matches!(keys.revoke(id), Revoked::Done { .. }));
    keys.create("edited");
}

// --- many ---

#[test]
fn a_hundred_thousand_keys_are_told_apart() {
    let count = 100_000;
    let mut listed = Listed::default();
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, token) = stranger();
        let terms = Terms::check(&named("key"), NOW_MS).unwrap();
        let secrets = Secrets { current: digest(&token), before: None };
        listed.records.push(KeyRecord { id, terms, created_ms: NOW_MS, revoked_ms: None, secrets });
        tokens.push((id, token));
    }
    let ring = Ring::new(listed, 1);
    assert_eq!(ring.len(), count);
    for (id, token) in &tokens {
        assert_eq!(ring.identify(token, NOW_MS).unwrap().id(), *id);
    }
    let strangers: Vec<String> = (0..count).map(|_| stranger().1).collect();
    for token in &strangers {
        assert_eq!(ring.identify(token, NOW_MS), Err(Stranger::Unknown));
    }
    for (_, token) in &tokens[..1000] {
        assert_eq!(ring.identify(&forged(token), NOW_MS), Err(Stranger::Unknown));
    }
}
