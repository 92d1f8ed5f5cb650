//! Budgets: what they cap, for whom, in which window.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_core::books::Mode;
use sluice_core::money::NanoUsd;
use sluice_core::window::{Window, Zone};
use sluice_ledger::budget::{self, OF_THE_KEY};
use sluice_ledger::rules::RunRules;

use super::Model;
use super::reader::{Found, Table};

/// Budgets at most: each is looked at on each attempt.
const BUDGETS_MAX: usize = 16;

/// Characters of a budget's name at most.
const NAME_CHARS_MAX: usize = 64;

/// When a run is idle, where nothing is said.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

/// What that may be: the ledger notes every quarter of a minute what is drawn on.
const IDLE_MIN: Duration = Duration::from_secs(60);
const IDLE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs of one key at once, where nothing is said, and at most.
const RUNS: u32 = 1000;
const RUNS_MAX: u64 = 1_000_000;

/// One `[[budgets]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) rule: Arc<budget::Budget>,
    pub(crate) per: Per,
    pub(crate) window: Window,
    pub(crate) unpriced: Unpriced,
    pub(crate) missing_run: MissingRun,
    /// A model to go on with where it is exhausted.
    pub(crate) downgrade_to: Option<String>,
    /// Where there is an account for each run.
    pub(crate) runs: Option<RunRules>,
}

/// Whose account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Run,
    Key,
    Team,
    Model,
    Upstream,
    /// One account for everybody.
    All,
}

/// What becomes of a call whose cost nobody can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpriced {
    /// It is refused.
    Deny,
    /// This budget does not see it.
    Allow,
}

/// What becomes of a call that names no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingRun {
    Refuse,
    /// It draws on an account of its key's own.
    Key,
}

impl Budget {
    /// It refuses what does not fit; a shadow does not.
    pub(crate) fn enforces(&self) -> bool {
        self.rule.mode == Mode::Enforce
    }
}

pub(super) fn budgets(root: &Table<'_>, models: &[Model]) -> Vec<Budget> {
    let Some(found) = root.get("budgets") else { return Vec::new() };
    let tables = found.tables();
    if tables.len() > BUDGETS_MAX {
        found.refuse::<()>(format!("wanted {BUDGETS_MAX} budgets at most"));
    }
    let mut seen = BTreeSet::new();
    let mut budgets = Vec::new();
    for table in &tables {
        let place = table.place();
        let Some(budget) = budget(table, models) else { continue };
        if !seen.insert(Arc::clone(&budget.rule.name)) {
            root.report(place.problem(format!("a budget named {:?} is there already", budget.rule.name)));
        }
        budgets.push(budget);
    }
    budgets
}

fn budget(table: &Table<'_>, models: &[Model]) -> Option<Budget> {
    let name = table.require("name", "a name of your own").and_then(|found| match found.text()? {
        text if text.trim().is_empty() || text.chars().count() > NAME_CHARS_MAX => {
            found.refuse(format!("wanted 1 to {NAME_CHARS_MAX} characters"))
        }
        text if text.starts_with(OF_THE_KEY) => found
            .refuse(format!("wanted a name that does not begin with {OF_THE_KEY:?}: keys' own budgets do")),
        text => Some(Arc::from(text)),
    });
    let per = table.require("per", "\"run\", \"key\", \"team\", \"model\", \"upstream\" or \"all\"");
    let per = per.and_then(|found| {
        let words = [
            ("run", Per::Run),
            ("key", Per::Key),
            ("team", Per::Team),
            ("model", Per::Model),
            ("upstream", Per::Upstream),
            ("all", Per::All),
        ];
        word(&found, &words)
    });
    let cap = table.require("cap_usd", "dollars in quotes, such as \"2.00\"");
    let cap = cap.and_then(|found| match found.text()?.parse::<NanoUsd>() {
        Ok(cap) if cap <= NanoUsd::CAP_MAX => Some(cap),
        Ok(_) => found.refuse(format!("wanted {} dollars at most", NanoUsd::CAP_MAX)),
        Err(error) => found.refuse(error.to_string()),
    });
    let window = window(table);
    let mode = or_first(table, "mode", &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)]);
    let unpriced = or_first(table, "unpriced", &[("deny", Unpriced::Deny), ("allow", Unpriced::Allow)]);
    let missing_run =
        or_first(table, "missing_run", &[("key", MissingRun::Key), ("refuse", MissingRun::Refuse)]);
    let downgrade_to = downgrade_to(table, models);
    let runs = runs(table, per);
    table.finish();
    let rule = Arc::new(budget::Budget { name: name?, cap: cap?, mode: mode? });
    Some(Budget {
        rule,
        per: per?,
        window: window?,
        unpriced: unpriced?,
        missing_run: missing_run?,
        downgrade_to: downgrade_to?,
        runs: runs?,
    })
}

/// None: it is wrong; none within: calls are refused.
fn downgrade_to(table: &Table<'_>, models: &[Model]) -> Option<Option<String>> {
    let downgrades = or_first(table, "on_exhaust", &[("refuse", false), ("downgrade", true)])?;
    match (downgrades, table.get("downgrade_to")) {
        (false, None) => Some(None),
        (false, Some(found)) => found.refuse("means something only with on_exhaust = \"downgrade\""),
        (true, Some(found)) => {
            let name = found.text()?;
            match models.iter().any(|model| model.name.matches(name)) {
                true => Some(Some(name.to_owned())),
                false => found.refuse("there is no such model"),
            }
        }
        (true, None) => {
            table.require("downgrade_to", "the name of a cheaper model");
            None
        }
    }
}

/// Of a budget that has no runs, none.
fn runs(table: &Table<'_>, per: Option<Per>) -> Option<Option<RunRules>> {
    let (idle, runs_max) = (table.get("idle"), table.get("runs_max"));
    if per.is_some_and(|per| per != Per::Run) {
        let said = idle.iter().chain(&runs_max);
        said.for_each(|found| _ = found.refuse::<()>("is for budgets with per = \"run\""));
        return Some(None);
    }
    let wanted = "wanted a time from 1m to 365d, such as \"24h\" or \"7d\"";
    let idle = match idle {
        None => IDLE,
        Some(found) => found.duration_in(IDLE_MIN..=IDLE_MAX, wanted)?,
    };
    let runs_max = match runs_max {
        None => RUNS,
        Some(found) => u32::try_from(found.integer(1..=RUNS_MAX)?).ok()?,
    };
    Some(Some(RunRules { idle_s: i64::try_from(idle.as_secs()).ok()?, runs_max }))
}

fn window(table: &Table<'_>) -> Option<Window> {
    let zone = match table.get("zone") {
        None => Zone::default(),
        Some(found) => match found.text()?.parse::<Zone>() {
            Ok(zone) => zone,
            Err(error) => return found.refuse(error.to_string()),
        },
    };
    or_first(
        table,
        "window",
        &[("total", Window::Total), ("day", Window::Day(zone.clone())), ("month", Window::Month(zone))],
    )
}

/// One of a few words; the first where nothing is said.
fn or_first<T: Clone>(table: &Table<'_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    match table.get(key) {
        None => words.first().map(|(_, value)| value.clone()),
        Some(found) => word(&found, words),
    }
}

fn word<T: Clone>(found: &Found<'_>, words: &[(&str, T)]) -> Option<T> {
    let text = found.text()?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Some(value.clone()),
        None => {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            found.refuse(format!("wanted one of {}", known.join(", ")))
        }
    }
}
