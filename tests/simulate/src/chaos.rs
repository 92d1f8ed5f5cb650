//! Which fault, if any, chance has for a request: the same for the same seed.

use serde::de::{Deserialize, Deserializer, Error};

use crate::fault::{Fault, at_most};

/// Faults by chance.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chaos {
    pub seed: u64,
    /// How many requests of a thousand are hit.
    #[serde(deserialize_with = "at_most::<1_000, _>")]
    pub permille: u32,
    /// What hits them, each as likely as the others. Their `times` mean nothing here.
    #[serde(deserialize_with = "some")]
    pub kinds: Vec<Fault>,
}

// === impl Chaos ===

impl Chaos {
    /// The fault for the request of this number.
    pub(crate) fn draw(&self, number: u64) -> Option<&Fault> {
        let hit = mixed(mixed(self.seed) ^ number);
        if hit % 1_000 >= self.permille.into() {
            return None;
        }
        let count = self.kinds.len().max(1) as u64;
        self.kinds.get((mixed(hit) % count) as usize)
    }
}

/// The step of splitmix64: neighbouring numbers become strangers.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Fault>, D::Error> {
    let kinds = Vec::<Fault>::deserialize(deserializer)?;
    if kinds.is_empty() {
        return Err(D::Error::custom("`kinds` is empty, want at least one fault"));
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::Chaos;
    use crate::fault::{Fault, FaultKind};

    fn draws(seed: u64, permille: u32) -> Vec<Option<FaultKind>> {
        let kinds =
            vec![Fault::Empty { times: 1 }, Fault::Delay { ms: 1, times: 1 }, Fault::NoUsage { times: 1 }];
        let chaos = Chaos { seed, permille, kinds };
        (1..=10_000).map(|number| chaos.draw(number).map(Fault::kind)).collect()
    }

    #[test]
    fn chance_hits_as_often_as_said_and_all_kinds_alike() {
        for seed in 0..20 {
            for permille in [0, 10, 300, 1_000] {
                let draws = draws(seed, permille);
                let hits = draws.iter().flatten().count();
                let wanted = permille as usize * 10;
                assert!(hits.abs_diff(wanted) <= 40 + wanted / 10, "seed {seed}: {hits} of {wanted}");
                for kind in [FaultKind::Empty, FaultKind::Delay, FaultKind::NoUsage] {
                    let count = draws.iter().flatten().filter(|drawn| **drawn == kind).count();
                    assert!(
                        count.abs_diff(hits / 3) <= 30 + hits / 20,
                        "seed {seed}: {kind} {count} of {hits}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_does_not() {
        assert_eq!(draws(7, 300), draws(7, 300));
        assert_ne!(draws(7, 300), draws(8, 300));
    }
}
