//! What the admin pages list: plugins and their files, the configuration, breakers.

use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};
use sluice_core::breaker::Standing;
use sluice_runtime::{FileRow, Serving};

use crate::lane::LaneView;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

pub(super) fn plugins(snapshot: &Snapshot) -> Value {
    let folder = &snapshot.folder;
    let plugins: Vec<Value> = snapshot.plugins.iter().map(|(id, serving)| plugin_row(id, serving)).collect();
    let files: Vec<Value> =
        folder.files.iter().map(|(file, row)| file_row(&file.display().to_string(), row)).collect();
    json!({
        "generation": snapshot.generation,
        "folder": {
            "dir": folder.dir, "unreadable": folder.unreadable, "files_not_looked_at": folder.beyond,
        },
        "plugins": plugins,
        "files": files,
    })
}

fn plugin_row(id: &str, serving: &Serving) -> Value {
    let plugin = &serving.plugin;
    let (manifest, counters) = (plugin.manifest(), plugin.counters());
    let call = |stats: sluice_runtime::CallStats| {
        (stats.function.to_owned(), json!({"count": stats.calls, "time_us": stats.time.as_micros() as u64}))
    };
    let calls: Map<String, Value> = counters.calls().into_iter().map(call).collect();
    let faults: Map<String, Value> =
        counters.faults().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let source =
        serving.file.as_ref().map_or_else(|| "built-in".to_owned(), |file| file.display().to_string());
    let grants: Vec<&str> = plugin.grants().iter().map(|grant| grant.name()).collect();
    let before = serving.trial.as_ref().map(|trial| trial.before.digest());
    json!({
        "id": id, "version": manifest.version, "kind": plugin.kind().name(), "doc": manifest.doc,
        "state": if before.is_some() { "probation" } else { "active" },
        "source": source, "digest": plugin.digest(), "generation": serving.generation, "replaced": before,
        "grants": grants, "calls": calls, "faults": faults,
        "log_messages_dropped": counters.log_messages_dropped(),
    })
}

fn file_row(file: &str, row: &FileRow) -> Value {
    json!({"file": file, "state": row.state.name(), "id": row.id, "digest": row.digest, "reason": row.reason})
}

pub(super) fn config(snapshot: &Snapshot) -> Value {
    let state = &snapshot.config_state;
    json!({
        "file": snapshot.config.file,
        "generation": snapshot.generation,
        "state": if state.refused.is_some() { "refused" } else { "active" },
        "reason": state.refused,
        "needs_restart": state.needs_restart,
    })
}

pub(super) fn breakers(snapshot: &Snapshot) -> Value {
    let now = Instant::now();
    let wall = SystemTime::now();
    let at = |instant: Instant| {
        humantime::format_rfc3339_millis(wall + instant.saturating_duration_since(now)).to_string()
    };
    let row = |view: LaneView| {
        let (reason, until) = match view.standing {
            Standing::Closed => (None, None),
            Standing::HalfOpen { why } => (Some(why.to_string()), None),
            Standing::Open { until, why } => (Some(why.to_string()), Some(at(until))),
        };
        let bench = view.bench.map(|bench| json!({"reason": bench.why.name(), "until": at(bench.until)}));
        json!({
            "upstream": view.lane.upstream, "model": view.lane.model, "state": view.standing.name(),
            "reason": reason, "probes_at": until, "rests": bench,
        })
    };
    let upstreams = snapshot.routes.upstreams().iter();
    let rows: Vec<Value> = upstreams.flat_map(|upstream| upstream.lanes.views(now)).map(row).collect();
    json!({ "breakers": rows })
}

pub(super) fn reset_breaker(snapshot: &Snapshot, upstream: &str, model: &str) -> Result<Value, Refusal> {
    let mut upstreams = snapshot.routes.upstreams().iter();
    match upstreams.find(|known| known.name == upstream).is_some_and(|known| known.lanes.reset(model)) {
        true => Ok(json!({"upstream": upstream, "model": model, "state": "closed"})),
        false => Err(Refusal::NoSuchBreaker),
    }
}
