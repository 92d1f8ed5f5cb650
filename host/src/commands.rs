//! Commands on keys, runs and usage: they work on the data folder, and a gateway that runs there takes
//! notice before they end.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use sluice_core::money::NanoUsd;
use sluice_ledger::audit::Act;
use sluice_ledger::doubt::{Charge, InDoubt, Resolved};
use sluice_ledger::keys::acts::{Created, Revoked, Rotated};
use sluice_ledger::keys::terms::{BudgetDraft, Draft};
use sluice_ledger::keys::watch::Seen;
use sluice_ledger::keys::{KeyError, KeyRecord, KeyStore};
use sluice_ledger::runs::acts::{Closed, RunStanding};
use sluice_ledger::runs::{EndedBy, RunId};
use sluice_ledger::sheet;
use sluice_ledger::store::{Store, StoreError};
use sluice_ledger::usage::{Query, Which};

use crate::cli::{CreateKeyArgs, KeyCommand, RunCommand, UsageArgs};
use crate::config::Config;
use crate::money::{scopes, unix_ms};

/// Who acts, in the audit.
pub(crate) const ACTOR: &str = "cli";

/// For a running gateway to take notice.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Rows that are shown at most.
const ROWS: u32 = 10_000;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("reading {file}")]
    Store { file: String, source: StoreError },
    #[error("{0}")]
    Refused(String),
    #[error("writing the answer")]
    Output(#[from] io::Error),
}

/// Does it, and prints what came of it.
///
/// # Errors
///
/// [`CommandError`]; nothing has changed then, but where it says so.
pub(crate) fn key(config: &Config, command: &KeyCommand) -> Result<(), CommandError> {
    let mut store = keys(config)?;
    match command {
        KeyCommand::Create(args) => create(&mut store, args),
        KeyCommand::List => list(&store),
        KeyCommand::Revoke { id } => {
            let id = id.parse().map_err(|_| no_key(id))?;
            match store.revoke(ACTOR, id, unix_ms())? {
                Revoked::Done { generation } => {
                    noticed(store.wait_until_seen(generation, SEEN_WITHIN)?, "the key is revoked")
                }
                Revoked::Already { since_ms } => {
                    Err(CommandError::Refused(format!("the key was revoked before, at {}", time(since_ms))))
                }
                Revoked::Unknown => Err(no_key(id.as_str())),
            }
        }
        KeyCommand::Rotate { id, grace } => {
            let id = id.parse().map_err(|_| no_key(id))?;
            match store.rotate(ACTOR, id, *grace, unix_ms())? {
                Rotated::Done { key, until_ms, generation } => {
                    writeln!(io::stdout(), "{}", key.reveal())?;
                    let said = format!("the secret before works until {}", time(until_ms));
                    noticed(store.wait_until_seen(generation, SEEN_WITHIN)?, &said)
                }
                Rotated::Revoked => Err(CommandError::Refused("the key was revoked".into())),
                Rotated::Expired => Err(CommandError::Refused("the key has expired".into())),
                Rotated::Unknown => Err(no_key(id.as_str())),
            }
        }
    }
}

/// Lists runs, or closes one.
///
/// # Errors
///
/// [`CommandError`]; nothing has changed then, but where it says so.
pub(crate) fn run(config: &Config, command: &RunCommand) -> Result<(), CommandError> {
    let mut store = keys(config)?;
    match command {
        RunCommand::List { key, all } => {
            let runs = store.store().runs(key.as_deref(), *all, ROWS).map_err(KeyError::from)?;
            let heads = ["key", "run", "budget", "spent USD", "used", "state"];
            let mut rows = vec![heads.map(String::from).to_vec()];
            rows.extend(runs.iter().map(run_row));
            Ok(table(io::stdout().lock(), &rows)?)
        }
        RunCommand::Close { name, key } => {
            let wanted = || "wanted a key's id, and a run's name of 1 to 128 visible ASCII characters".into();
            let id = RunId::new(key, name).ok_or_else(|| CommandError::Refused(wanted()))?;
            match store.store().close_run(ACTOR, &id, unix_ms()).map_err(KeyError::from)? {
                Closed::Done { generation } => {
                    noticed(store.wait_until_closed(generation, SEEN_WITHIN)?, "the run is closed")
                }
                Closed::Already { ended_s, by } => Err(CommandError::Refused(format!(
                    "the run has ended before ({}), at {}",
                    by.name(),
                    seconds(ended_s)
                ))),
                Closed::Unknown => Err(CommandError::Refused(
                    "no budget has an account for this run; `sluice run list` shows those that there are"
                        .into(),
                )),
            }
        }
    }
}

fn run_row(standing: &RunStanding) -> Vec<String> {
    let ended = |(ended_s, by): (i64, EndedBy)| format!("{} {}", by.name(), seconds(ended_s));
    vec![
        standing.run.key().into(),
        standing.run.name().into(),
        standing.budget.clone(),
        standing.spent.to_string(),
        seconds(standing.used_s),
        standing.ended.map_or("open".into(), ended),
    ]
}

/// Prints what was used, or resolves what is in doubt.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn usage(config: &Config, args: &UsageArgs) -> Result<(), CommandError> {
    let file = config.server.data_dir.join("sluice.db");
    let failed = |source| CommandError::Store { file: file.display().to_string(), source };
    if let (Some(id), Some(charge)) = (args.resolve, &args.charge) {
        return resolve(config, &file, id, charge);
    }
    let store = Store::open_to_read(&file).map_err(failed)?;
    let out = io::stdout().lock();
    if args.in_doubt {
        return in_doubt(&store, out).map_err(|error| error.unwrap_or_else(failed));
    }
    let day = |text: &Option<String>| {
        let day = text.as_ref().map(|text| text.parse());
        day.transpose().map_err(|error| CommandError::Refused(format!("a day: {error}")))
    };
    let by = args.by.split(',').map(|text| text.trim().parse()).collect::<Result<_, _>>();
    let by = by.map_err(|error| CommandError::Refused(format!("--by: {error}")))?;
    let which = Which {
        from: day(&args.from)?,
        to: day(&args.to)?,
        key: args.key.clone(),
        run: args.run.clone(),
        ..Which::default()
    };
    let answer = store.usage(&Query { by, which, limit: ROWS }).map_err(failed)?;
    if args.csv {
        return Ok(sheet::write_usage(&answer, out)?);
    }
    let heads = answer.by.iter().map(|by| by.name());
    let mut rows = vec![heads.chain(["calls", "input", "output", "cost USD"]).map(String::from).collect()];
    for sum in answer.rows {
        let numbers =
            [sum.calls.to_string(), sum.input.to_string(), sum.output.to_string(), sum.cost.to_string()];
        rows.push(sum.names.into_iter().chain(numbers).collect());
    }
    Ok(table(out, &rows)?)
}

fn create(store: &mut KeyStore, args: &CreateKeyArgs) -> Result<(), CommandError> {
    let now_ms = unix_ms();
    let expires = args.expires_in.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let draft = Draft {
        name: args.name.clone(),
        team: args.team.clone(),
        models: args.models.clone(),
        addresses: args.addresses.clone(),
        expires_ms: expires.map(|span| now_ms.saturating_add(span)),
        requests_per_minute: args.requests_per_minute,
        tokens_per_minute: args.tokens_per_minute,
        concurrent: args.concurrent,
        budgets: args.budgets.iter().map(|text| budget(text)).collect::<Result<_, _>>()?,
    };
    match store.create(ACTOR, &draft, now_ms)? {
        Created::Done { key, record, generation } => {
            writeln!(io::stdout(), "{}", key.reveal())?;
            let said = format!("the key {} is shown this once: it is stored nowhere", record.id);
            noticed(store.wait_until_seen(generation, SEEN_WITHIN)?, &said)
        }
        Created::NameTaken => {
            Err(CommandError::Refused(format!("a key that is not revoked is named {:?}", args.name)))
        }
    }
}

/// `5.00`, `5.00/day` or `5.00/month`.
fn budget(text: &str) -> Result<BudgetDraft, CommandError> {
    let (cap, window) = text.split_once('/').unwrap_or((text, "total"));
    let cap = cap.parse().map_err(|error| CommandError::Refused(format!("--budget {text}: {error}")))?;
    Ok(BudgetDraft { cap, window: window.into(), zone: None })
}

fn list(store: &KeyStore) -> Result<(), CommandError> {
    let listed = store.list().map_err(KeyError::from)?;
    let heads = ["id", "name", "team", "models", "created", "state"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    let now_ms = unix_ms();
    rows.extend(listed.records.iter().map(|record| row(record, now_ms)));
    Ok(table(io::stdout().lock(), &rows)?)
}

fn row(record: &KeyRecord, now_ms: u64) -> Vec<String> {
    let terms = &record.terms;
    let models: Vec<&str> = terms.models().iter().map(|pattern| pattern.as_str()).collect();
    let state = match (record.revoked_ms, terms.expires_ms()) {
        (Some(at), _) => format!("revoked {}", time(at)),
        (None, Some(at)) if at <= now_ms => format!("expired {}", time(at)),
        (None, Some(at)) => format!("until {}", time(at)),
        (None, None) => "good".into(),
    };
    vec![
        record.id.as_str().into(),
        terms.name().into(),
        terms.team().unwrap_or_default().into(),
        if models.is_empty() { "all".into() } else { models.join(" ") },
        time(record.created_ms),
        state,
    ]
}

/// Whether the gateway that runs goes by it.
fn noticed(seen: Seen, done: &str) -> Result<(), CommandError> {
    match seen {
        Seen::Taken => eprintln!("{done}; the running gateway goes by it"),
        Seen::NobodyRuns => eprintln!("{done}"),
        Seen::NotInTime => {
            let said = format!("{done}, but the running gateway has not taken notice within {SEEN_WITHIN:?}");
            return Err(CommandError::Refused(said));
        }
    }
    Ok(())
}

fn in_doubt(store: &Store, out: impl Write) -> Result<(), Result<CommandError, StoreError>> {
    let heads = ["number", "since", "held USD", "attempt", "request", "budgets"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for doubt in store.doubts(ROWS).map_err(Err)? {
        let budgets: Vec<String> =
            doubt.accounts.iter().map(|(_, key)| format!("{} {}", key.budget, key.scope)).collect();
        rows.push(vec![
            doubt.id.0.to_string(),
            time(doubt.since_ms),
            doubt.amount.to_string(),
            doubt.attempt,
            doubt.request,
            budgets.join(", "),
        ]);
    }
    for rest in store.remainders().map_err(Err)? {
        let budget = format!("{} {}", rest.key.budget, rest.key.scope);
        rows.push(vec![
            InDoubt::Rest(rest.account).to_string(),
            String::new(),
            rest.amount.to_string(),
            "leased when the power went".into(),
            String::new(),
            budget,
        ]);
    }
    table(out, &rows).map_err(|error| Ok(error.into()))
}

fn resolve(config: &Config, file: &Path, what: InDoubt, charge: &str) -> Result<(), CommandError> {
    let charge: NanoUsd =
        charge.parse().map_err(|error| CommandError::Refused(format!("--charge: {error}")))?;
    let failed = |source| CommandError::Store { file: file.display().to_string(), source };
    let mut store = Store::open(file).map_err(failed)?;
    let (subject, detail) = (what.to_string(), serde_json::json!({"charge_usd": charge.to_string()}));
    let act = Act {
        at_ms: unix_ms(),
        actor: ACTOR,
        act: "doubt.resolve",
        subject: &subject,
        detail: &detail,
        outcome: "done",
    };
    let scopes = scopes(&config.budgets);
    let resolved = store.resolve(what, Charge::Within(charge), &scopes, &|batch| batch.add_act(&act));
    let resolved = resolved.map_err(failed)?;
    if !matches!(resolved, Resolved::Done { .. }) {
        store.add_act(&Act { outcome: resolved.outcome(), ..act }).map_err(failed)?;
    }
    match resolved {
        Resolved::Done { held } => {
            eprintln!("{charge} USD are settled of {held} USD that were in doubt");
            Ok(())
        }
        Resolved::Beyond { held } => Err(CommandError::Refused(format!(
            "only {held} USD are in doubt; more can be settled by /admin/v1/in-doubt"
        ))),
        Resolved::Already => Err(CommandError::Refused("it was resolved before".into())),
        Resolved::Unknown => Err(CommandError::Refused("nothing of this number is in doubt".into())),
    }
}

fn keys(config: &Config) -> Result<KeyStore, CommandError> {
    let folder = &config.server.data_dir;
    let file = folder.join("sluice.db");
    let failed = |source| CommandError::Store { file: file.display().to_string(), source };
    make_data_folder(folder)?;
    KeyStore::open(&file).map_err(failed)
}

/// As the gateway makes it: for nobody else.
pub(crate) fn make_data_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn no_key(id: &str) -> CommandError {
    CommandError::Refused(format!("there is no key {id:?}; `sluice key list` shows those that there are"))
}

/// Rows under their heads, in columns.
pub(crate) fn table(mut out: impl Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn seconds(at_s: i64) -> String {
    time(u64::try_from(at_s).unwrap_or(0).saturating_mul(1000))
}

/// An instant, for people.
pub(crate) fn time(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(at).to_string()
}
