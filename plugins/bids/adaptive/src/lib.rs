//! Learns from its own bids which price over the cost is worth most, and asks for that.
//!
//! A function of what it is shown: the same book and job give the same bid. What the book teaches is
//! in `lessons`; here is what comes of it.

mod lessons;

use std::collections::BTreeMap;

use bid_terms::{Room, Terms, code};
use serde::Deserialize;
use sluice_plugin::bid::{
    Book, Decision, Job, Manifest, PluginError, Setup, Strategy, Texts, cheapest, empty_book, manifest,
    sample_job,
};

use crate::lessons::{Lessons, STEPS, Size};

/// Percent, where the operator does not say.
const MARGIN_PERCENT: u32 = 10;

struct Adaptive {
    terms: Terms,
    explore_every: u32,
}

/// The member beside the terms.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    explore_every: u32,
}

/// Where a bid lies beside the best one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Best,
    /// One step off, to learn: never below the least.
    Higher,
    Lower,
}

impl Default for Config {
    fn default() -> Config {
        Config { explore_every: 10 }
    }
}

impl Strategy for Adaptive {
    fn describe() -> Manifest {
        let doc =
            "What has paid best so far: learns the price, the real cost and who pays from its own bids.";
        Manifest {
            config_schema: include_str!("schema.json").into(),
            ..manifest("adaptive", env!("CARGO_PKG_VERSION"), doc)
        }
    }

    fn configure(setup: Setup) -> Result<Adaptive, PluginError> {
        let terms = Terms::read(&setup.config_json, MARGIN_PERCENT)?;
        let config: Config = serde_json::from_str(&setup.config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        Ok(Adaptive { terms, explore_every: config.explore_every })
    }

    fn self_test() -> Result<(), String> {
        let setup = Setup { config_json: "{}".into(), names: Vec::new(), targets: Vec::new() };
        let adaptive = Adaptive::configure(setup).map_err(|error| format!("{error:?}"))?;
        let job = sample_job(0, 1_000_000_000, 100_000_000);
        match adaptive.decision(&job, &empty_book(), &Lessons::of(&[], Size::of(0))) {
            Decision::Bid(110_000_000..=1_000_000_000) => Ok(()),
            other => Err(format!("a job of ten cents that pays a dollar: {other:?}")),
        }
    }

    fn decide(
        &self,
        book: &Book,
        jobs: &[Job],
        _texts: &dyn Texts,
    ) -> Result<Vec<(u32, Decision)>, PluginError> {
        let mut by_size = BTreeMap::new();
        let mut decided = |job: &Job| {
            let size = Size::of(cheapest(job).map_or(0, |target| target.expected));
            let lessons = by_size.entry(size).or_insert_with(|| Lessons::of(&book.recent, size));
            (job.id, self.decision(job, book, lessons))
        };
        Ok(jobs.iter().map(&mut decided).collect())
    }
}

impl Adaptive {
    fn decision(&self, job: &Job, book: &Book, lessons: &Lessons) -> Decision {
        let Some(target) = cheapest(job) else { return Decision::Skip(code::NO_TARGET) };
        let room = match self.terms.room(job, lessons.cost(target.expected), target.worst) {
            Ok(room) => room,
            Err(code) => return Decision::Skip(code),
        };
        let bids = bids(room, target.expected);
        let (mut best, mut profit) = (0, i128::MIN);
        for (place, bid) in bids.iter().enumerate() {
            let of_it = lessons.profit(*bid, target.expected);
            if of_it > profit {
                (best, profit) = (place, of_it);
            }
        }
        let aim = self.aim(job, book);
        if profit <= 0 && target.expected > 0 {
            // Now and then the least is tried, since one who never bids never learns better.
            return match aim {
                Aim::Best => Decision::Skip(code::NO_PROFIT),
                Aim::Higher | Aim::Lower => Decision::Bid(room.least),
            };
        }
        let place = match aim {
            Aim::Best => best,
            Aim::Higher => (best + 1).min(bids.len() - 1),
            Aim::Lower => best.saturating_sub(1),
        };
        Decision::Bid(bids[place])
    }

    /// By a hash of the job and of how many bids have ended: a job that is shown again fares as
    /// before, until there is something new to know.
    fn aim(&self, job: &Job, book: &Book) -> Aim {
        let ended = u64::from(book.wins) + u64::from(book.losses);
        let of_job = [job.credit, job.prompt_tokens.into(), job.output_expected.into(), job.text_len.into()];
        let hash = of_job.into_iter().chain([job.needs, ended]).fold(0, |hash, part| mixed(hash ^ part));
        match hash.checked_rem(self.explore_every.into()) {
            Some(0) if (hash / u64::from(self.explore_every)).is_multiple_of(2) => Aim::Higher,
            Some(0) => Aim::Lower,
            Some(_) | None => Aim::Best,
        }
    }
}

/// The least, and those steps of the price that lie in the room, upwards; never none.
fn bids(room: Room, expected: u64) -> Vec<u64> {
    let at = |step: u64| {
        let exact = u128::from(expected) * u128::from(step);
        u64::try_from(exact.div_ceil(1_000)).unwrap_or(u64::MAX)
    };
    let steps = STEPS.into_iter().map(at).filter(|bid| (room.least + 1..=room.most).contains(bid));
    std::iter::once(room.least).chain(steps).collect()
}

/// The mix of Steele, Lea and Flood's generator (OOPSLA 2014): neighbours have nothing in common.
fn mixed(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

sluice_plugin::export_strategy!(Adaptive);

#[cfg(test)]
mod tests;
