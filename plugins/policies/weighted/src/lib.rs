//! Orders targets at random, in proportion to their weights.
//!
//! Each place is drawn from those that are left, so that whoever comes second is drawn by weight
//! too: when a target fails, its share goes to the others as their weights are. Weight 0 means
//! "only if nobody else can": after all others, by priority.

use sluice_plugin::policy::{
    Candidate, Manifest, PluginError, Policy, Ranking, Setup, View, in_order, manifest,
};

struct Weighted;

impl Policy for Weighted {
    fn describe() -> Manifest {
        let doc = "At random in proportion to weight; weight 0 last, by priority.";
        manifest("weighted", env!("CARGO_PKG_VERSION"), doc)
    }

    fn configure(_setup: Setup) -> Result<Weighted, PluginError> {
        Ok(Weighted)
    }

    fn rank(&self, view: View, candidates: Vec<Candidate>) -> Result<Ranking, PluginError> {
        Ok(in_order(&drawn(view.seed, candidates)))
    }
}

fn drawn(seed: u64, candidates: Vec<Candidate>) -> Vec<Candidate> {
    let (mut left, mut last): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.weight > 0);
    last.sort_by_key(|candidate| candidate.priority);
    let mut chance = SplitMix64(seed);
    let mut order = Vec::with_capacity(left.len() + last.len());
    while !left.is_empty() {
        let total = left.iter().map(|candidate| u64::from(candidate.weight)).sum();
        let place = place_of(chance.below(total), &left);
        order.push(left.remove(place));
    }
    order.append(&mut last);
    order
}

/// Whose share of the sum of all weights `point` falls into.
fn place_of(mut point: u64, candidates: &[Candidate]) -> usize {
    let is_of = |candidate: &Candidate| {
        let weight = u64::from(candidate.weight);
        let is_of = point < weight;
        point = point.saturating_sub(weight);
        is_of
    };
    candidates.iter().position(is_of).unwrap_or(0)
}

/// Steele, Lea and Flood's generator (OOPSLA 2014): a counter, and a mix of its bits. Seeds that lie
/// side by side give numbers that have nothing in common, already at the first draw.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Below `bound`, by the upper half of a product. Sums of weights are so small beside 2^64 that
    /// what is left of a bias cannot be measured.
    fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

sluice_plugin::export_policy!(Weighted);

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 100_000;

    /// Ids count up from 0; priorities count down.
    fn candidates(weights: &[u16]) -> Vec<Candidate> {
        let candidate = |(id, weight): (u32, &u16)| Candidate {
            id,
            priority: 100 - id as u16,
            weight: *weight,
            expected: 0,
            worst: 0,
            ewma_ttft_us: 0,
            ewma_total_us: 0,
            samples: 0,
            success_permille: 0,
            inflight: 0,
            breaker: 0,
        };
        (0..).zip(weights).map(candidate).collect()
    }

    fn order(seed: u64, weights: &[u16]) -> Vec<u32> {
        drawn(seed, candidates(weights)).iter().map(|candidate| candidate.id).collect()
    }

    /// How often each is at `place`, of those orders for which `counts` holds.
    fn shares(weights: &[u16], place: usize, counts: impl Fn(&[u32]) -> bool) -> Vec<f64> {
        let mut hits = vec![0_u32; weights.len()];
        for seed in 0..SEEDS {
            let order = order(seed, weights);
            if counts(&order) {
                hits[order[place] as usize] += 1;
            }
        }
        let sum: u32 = hits.iter().sum();
        hits.iter().map(|hits| f64::from(*hits) / f64::from(sum)).collect()
    }

    #[test]
    fn first_places_are_shared_as_the_weights_are() {
        for weights in [&[1, 1][..], &[70, 20, 10], &[1, 2, 3, 4], &[65_535, 65_535, 1], &[5, 0, 15]] {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (share, weight) in shares(weights, 0, |_| true).iter().zip(weights) {
                let wanted = f64::from(*weight) / total;
                assert!((share - wanted).abs() < 0.01, "{weights:?}: {share} instead of {wanted}");
            }
        }
    }

    #[test]
    fn second_places_are_shared_as_the_weights_of_the_others_are() {
        let shares = shares(&[60, 30, 10], 1, |order| order[0] == 0);
        assert!((shares[1] - 0.75).abs() < 0.01 && (shares[2] - 0.25).abs() < 0.01, "{shares:?}");
    }

    #[test]
    fn weight_0_comes_last_and_by_priority() {
        for seed in 0..1000 {
            let order = order(seed, &[0, 3, 0, 1, 0]);
            assert_eq!(order[2..], [4, 2, 0], "seed {seed}");
        }
        assert_eq!(order(7, &[0, 0, 0]), [2, 1, 0], "without any weight, priority alone");
    }

    #[test]
    fn the_same_view_gives_the_same_order_of_all() {
        for seed in [0, 1, 2_u64.pow(53) - 1] {
            let first = order(seed, &[1, 2, 3, 0]);
            assert_eq!(first, order(seed, &[1, 2, 3, 0]), "seed {seed}");
            let mut ids = first;
            ids.sort_unstable();
            assert_eq!(ids, [0, 1, 2, 3], "seed {seed}");
        }
    }
}
