//! Takes turns: each request starts with the next target, in order of their ids, and goes on with
//! those after it.
//!
//! The turn is the number of the request, which the host counts for each model: nothing is kept here.

use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

struct RoundRobin;

impl Policy for RoundRobin {
    fn describe() -> Manifest {
        manifest("round-robin", env!("CARGO_PKG_VERSION"), "Each request starts with the next target.")
    }

    fn configure(_setup: Setup) -> Result<RoundRobin, PluginError> {
        Ok(RoundRobin)
    }

    fn rank(&self, view: View, candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        Ok(in_order(&turned(view.seq, candidates)))
    }
}

fn turned(seq: u64, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| candidate.id);
    if let Some(turn) = seq.checked_rem(candidates.len() as u64) {
        candidates.rotate_left(turn as usize);
    }
    candidates
}

sluice_plugin::export_policy!(RoundRobin);

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(ids: &[u32]) -> Vec<Candidate> {
        let candidate = |id: &u32| Candidate {
            id: *id,
            priority: 1,
            weight: 1,
            expected: 0,
            worst: 0,
            ewma_ttft_us: 0,
            ewma_total_us: 0,
            samples: 0,
            success_permille: 0,
            inflight: 0,
            breaker: 0,
        };
        ids.iter().map(candidate).collect()
    }

    fn order(seq: u64, ids: &[u32]) -> Vec<u32> {
        turned(seq, candidates(ids)).iter().map(|candidate| candidate.id).collect()
    }

    #[test]
    fn everyone_is_first_equally_often() {
        const ROUNDS: u64 = 50;
        for count in 1..=7_u32 {
            let ids: Vec<u32> = (0..count).map(|place| place * 3).collect();
            let start = 2_u64.pow(53) - 1000;
            let mut firsts = vec![0; ids.len()];
            for seq in start..start + u64::from(count) * ROUNDS {
                firsts[(order(seq, &ids)[0] / 3) as usize] += 1;
            }
            assert!(firsts.iter().all(|times| *times == ROUNDS), "{count}: {firsts:?}");
        }
    }

    #[test]
    fn the_others_follow_in_turn_however_they_are_listed() {
        for ids in [[0, 1, 2, 3], [3, 1, 0, 2]] {
            assert_eq!(order(0, &ids), [0, 1, 2, 3]);
            assert_eq!(order(6, &ids), [2, 3, 0, 1]);
        }
    }

    #[test]
    fn nobody_is_no_turn() {
        assert_eq!(order(5, &[]), [0; 0]);
    }
}
