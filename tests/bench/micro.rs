//! What the plugin calls of one request cost, through the runtime that the gateway uses.
//!
//! `sluice-bench ROWS [ROUNDS [NAME]]` prints a table and writes a JSON line for each operation to
//! the file ROWS; with NAME only those whose names hold it, for a profiler. Plugins are read from
//! `plugins/dist`, the mapper from `target/guests`; one that is
//! not there is an error. `tests/bench/run` calls this.

mod clock;
mod question;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clock::{Candidate, Row, measure, percentile};
use question::{BODY, Question};
use sluice_core::codes::{Endpoint, Surface};
use sluice_core::json::{Index, splice};
use sluice_core::plan::{BodyPlan, CallPlan};
use sluice_core::ranking::{self, NO_CAP, View};
use sluice_runtime::{
    Adapter, AnswerContext, Decision, Inbound, Pace, Plugin, Policy, Runtime, Setup, Versioned,
};

/// The gateway's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The gates.
const FRESH_ADAPTER_MAX: Duration = Duration::from_micros(15);
const RANK_OF_16_MAX: Duration = Duration::from_nanos(2_500);

/// Batches of each operation: some ten seconds in all.
const ROUNDS: usize = 60;

/// One frame of a stream, in the wire of `tests/guests/mapper`.
const FRAME: &str =
    "event: delta\ndata: {\"type\":\"delta\",\"index\":0,\"delta\":{\"type\":\"text\",\"text\":\"Hello\"}}";

type Candidates = Result<Vec<Candidate>, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, rounds, wanted) = match arguments.as_slice() {
        [file] => (file, ROUNDS, ""),
        [file, rounds] => (file, rounds.parse()?, ""),
        [file, rounds, name] => (file, rounds.parse()?, name.as_str()),
        _ => return Err("usage: sluice-bench ROWS [ROUNDS [NAME]]".into()),
    };
    let runtime = Runtime::new(None)?;
    let mut candidates = fresh_adapters(&runtime)?;
    candidates.extend(reused_plans(&runtime)?);
    candidates.extend(pushes(&runtime)?);
    candidates.extend(rankings(&runtime)?);
    candidates.retain(|candidate| candidate.name.contains(wanted));
    report(&measure(candidates, rounds.max(1)), Path::new(file))?;
    Ok(())
}

/// What a request pays whose plan cannot be reused: store, limits, instance, the first call
/// (`configure`), drop; and, as *fresh plan*, the same with `plan` and its check.
fn fresh_adapters(runtime: &Runtime) -> Candidates {
    let inbound: Arc<dyn Inbound> = Arc::new(Question::new()?);
    let mut candidates = Vec::new();
    for (name, id) in [("fresh adapter: openai", "openai"), ("fresh adapter: echo", "echo")] {
        let (runtime, plugin) = (runtime.clone(), plugin(runtime, &format!("plugins/dist/{id}.wasm"))?);
        let fresh = move || -> Result<Adapter, Box<dyn Error>> {
            Ok(Adapter::set_up(&runtime, &plugin, setup()).ok_or("not an adapter")??)
        };
        candidates.push(Candidate::new(name, fresh).at_most(FRESH_ADAPTER_MAX));
    }
    for (name, id) in [("fresh plan: openai", "openai"), ("fresh plan: echo", "echo")] {
        let adapter = adapter(runtime, &format!("plugins/dist/{id}.wasm"))?;
        adapter.plan(Arc::clone(&inbound), "gpt-4o-mini")?;
        let inbound = Arc::clone(&inbound);
        candidates.push(Candidate::new(name, move || adapter.plan(Arc::clone(&inbound), "gpt-4o-mini")));
    }
    Ok(candidates)
}

/// What is left of a plan's cost once it is reused: adapters are never warm, since each request
/// gets an instance of its own. The look-up by shape is the gateway's and not in here.
fn reused_plans(runtime: &Runtime) -> Candidates {
    let adapter = adapter(runtime, "plugins/dist/openai.wasm")?;
    let planned = adapter.plan(Arc::new(Question::new()?), "another-model")?;
    let Decision::Send(plan) = planned.decision else { return Err("openai answered by itself".into()) };
    if !planned.reusable {
        return Err("openai's plan cannot be reused".into());
    }
    spliced(&plan)?;
    Ok(vec![
        Candidate::new("scan of the body", || Index::scan(BODY.as_bytes())),
        Candidate::new("warm plan: scan and splice", move || spliced(&plan)),
    ])
}

fn spliced(plan: &CallPlan) -> Result<Vec<u8>, Box<dyn Error>> {
    let BodyPlan::Edits(edits) = &plan.body else { return Err("openai made no edits".into()) };
    Ok(splice(BODY.as_bytes(), &Index::scan(BODY.as_bytes())?, edits)?)
}

fn pushes(runtime: &Runtime) -> Candidates {
    let adapter = adapter(runtime, "target/guests/mapper.wasm")?;
    let context = AnswerContext {
        request_id: "0123456789abcdef".into(),
        model: "gpt-4o-mini".into(),
        created_s: 1_700_000_000,
        surface: Surface::OpenAiChat.code(),
        endpoint: Endpoint::Chat.code(),
        streaming: true,
        carry: Vec::new(),
    };
    let mut candidates = Vec::new();
    for (name, frames) in [("warm push: 1 frame", 1), ("warm push: 16 frames", 16)] {
        let frames = vec![FRAME.as_bytes().to_vec(); frames];
        let place = adapter.place().ok_or("too many decoders are open")?;
        let mut mapper = adapter.mapper(&context, place)?;
        if mapper.push(&frames)?.wire.is_empty() {
            return Err("the mapper made nothing of a frame".into());
        }
        candidates.push(Candidate::new(name, move || mapper.push(&frames)));
    }
    Ok(candidates)
}

fn rankings(runtime: &Runtime) -> Candidates {
    let mut candidates = Vec::new();
    for (name, id, count) in [
        ("warm rank: priority, 1", "priority", 1),
        ("warm rank: priority, 16", "priority", 16),
        ("warm rank: priority, 64", "priority", 64),
        ("warm rank: cheapest, 1", "cheapest", 1),
        ("warm rank: cheapest, 16", "cheapest", 16),
        ("warm rank: cheapest, 64", "cheapest", 64),
    ] {
        let plugin = plugin(runtime, &format!("plugins/dist/{id}.wasm"))?;
        let policy = Policy::set_up(runtime, &plugin, setup()).ok_or("not a policy")??;
        let (view, targets) = (view(), targets(count));
        policy.rank(&view, &targets)?;
        let candidate = Candidate::new(name, move || policy.rank(&view, &targets));
        candidates.push(if count == 16 { candidate.at_most(RANK_OF_16_MAX) } else { candidate });
    }
    Ok(candidates)
}

fn view() -> View {
    View { endpoint: Endpoint::Chat.code(), budget_left: NO_CAP, deadline_ms: 600_000, ..View::default() }
}

/// Targets in no order: priorities and prices repeat and go up and down.
fn targets(count: u32) -> Vec<ranking::Candidate> {
    let target = |id: u32| ranking::Candidate {
        id,
        priority: u16::try_from(id * 7 % 5).unwrap_or_default(),
        weight: 1,
        expected: u64::from(id * 37 % 101) * 1_000,
        worst: u64::from(id * 53 % 103) * 1_000,
        success_permille: 1_000,
        ..ranking::Candidate::default()
    };
    (0..count).map(target).collect()
}

fn adapter(runtime: &Runtime, file: &str) -> Result<Adapter, Box<dyn Error>> {
    Ok(Adapter::set_up(runtime, &plugin(runtime, file)?, setup()).ok_or("not an adapter")??)
}

fn plugin(runtime: &Runtime, file: &str) -> Result<Arc<Plugin>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let bytes = std::fs::read(&path).map_err(|error| format!("{file}: {error}"))?;
    Ok(Arc::new(runtime.admit(&bytes, Pace::Start)?))
}

fn setup() -> Setup {
    Setup { config_json: "{}".into(), ..Setup::default() }
}

fn report(rows: &[Row], file: &Path) -> Result<(), Box<dyn Error>> {
    let mut lines = std::fs::File::create(file)?;
    let mut table = std::io::stdout().lock();
    writeln!(table, "{:<28} {:>10} {:>10} {:>10} {:>10}  gate", "µs", "median", "p90", "min", "cpu")?;
    for row in rows {
        serde_json::to_writer(&mut lines, row)?;
        writeln!(lines)?;
        let wall = [50, 90, 0].map(|percent| percentile(&row.wall_ns, percent) / 1e3);
        let cpu = percentile(&row.cpu_ns, 50) / 1e3;
        let [median, p90, least] = wall;
        let gate = row.gate_ns.map_or(String::new(), |gate| {
            format!("<= {} {}", gate / 1e3, if median * 1e3 <= gate { "pass" } else { "FAIL" })
        });
        writeln!(table, "{:<28} {median:>10.3} {p90:>10.3} {least:>10.3} {cpu:>10.3}  {gate}", row.name)?;
    }
    Ok(())
}
