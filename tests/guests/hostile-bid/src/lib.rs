//! A strategy that bids each job's floor where it may, and goes wrong in the way that the first job's text or the
//! mark says.

#[path = "../../mark.rs"]
#[expect(dead_code, reason = "the others' manners")]
mod mark;
#[path = "../../hostile-policy/src/misdeeds.rs"]
#[expect(dead_code, reason = "a huge ranking")]
mod misdeeds;

use mark::mark;
use sluice_plugin::bid::{
    Book, Decision, Job, Manifest, PluginError, Setup, Strategy, Texts, manifest, most,
};

/// Decisions of the longest answer.
const MANY: u32 = 100_000;

struct Hostile;

impl Strategy for Hostile {
    fn describe() -> Manifest {
        manifest("hostile-bid", env!("CARGO_PKG_VERSION"), "For tests: misbehaves as a job's text says.")
    }

    fn configure(_setup: Setup) -> Result<Hostile, PluginError> {
        Ok(Hostile)
    }

    fn decide(
        &self,
        book: &Book,
        jobs: &[Job],
        texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError> {
        let mut decided: Vec<_> = jobs.iter().map(|job| (job.id, honest(job))).collect();
        let Some(job) = jobs.first() else { return Ok(decided) };
        let text = texts.read(job.id, 64);
        // In the rehearsal everybody behaves.
        let misdeed = match (text.as_str(), mark().0) {
            ("marked", manner) => manner,
            (text, _) => text,
        };
        match misdeed {
            "spin" => misdeeds::spin(),
            "recurse" => return failed(misdeeds::recurse()),
            "overflow" => return failed(misdeeds::overflow()),
            "hoard" => misdeeds::hoard(),
            "panic" => panic!("a guest gave up"),
            "error" => return Err(PluginError::Internal("a guest says that it failed".into())),
            "unsupported" => return Err(PluginError::Unsupported("not today".into())),
            "stranger" => decided.push((4_000_000_000, Decision::Skip(0))),
            "twice" => decided.push((job.id, Decision::Skip(0))),
            "flood" => decided.extend((0..MANY).map(|_| (job.id, Decision::Skip(0)))),
            "silent" => decided.clear(),
            "below" => decided[0].1 = Decision::Bid(job.floor - 1),
            "above" => decided[0].1 = Decision::Bid(most(job) + 1),
            "largest" => decided[0].1 = Decision::Bid(u64::MAX),
            "read" => decided[0].1 = Decision::Skip(readable_kib(jobs, texts)),
            "recent" => decided[0].1 = Decision::Skip(book.recent.len() as u16),
            "newest" => decided[0].1 = Decision::Bid(book.recent[book.recent.len() - 1].bid),
            _ => {}
        }
        Ok(decided)
    }
}

fn honest(job: &Job) -> Decision {
    if job.floor > most(job) { Decision::Skip(0) } else { Decision::Bid(job.floor) }
}

/// How much of all texts can be read in one call: in KiB, rounded down.
fn readable_kib(jobs: &[Job], texts: &dyn Texts) -> u16 {
    let mut bytes = 0;
    loop {
        let read: usize = jobs.iter().map(|job| texts.read(job.id, u32::MAX).len()).sum();
        bytes += read;
        if read == 0 {
            return (bytes / 1024) as u16;
        }
    }
}

fn failed(result: u64) -> Result<Vec<(u32, Decision)>, PluginError> {
    Err(PluginError::Internal(format!("came to an end with {result}")))
}

sluice_plugin::export_strategy!(Hostile);
