//! Draws that depend on the seed and on what they are for, and on nothing else.
//!
//! Each job, rival and refusal has draws of its own: however many others are
//! made before, and whatever a provider does, it draws the same.

use crate::chaos::mixed;

/// What draws are made for. The numbers are part of what a seed means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Job = 1,
    /// What a rival bids on a job.
    Rival = 2,
    /// Whether a proposal is refused.
    Refusal = 3,
    /// Who somebody is.
    Identity = 4,
    /// Keys, tokens and the like.
    Secret = 5,
    /// The words of a prompt.
    Words = 6,
}

/// A row of draws.
#[derive(Debug)]
pub(crate) struct Chance {
    state: u64,
}

// === impl Chance ===

impl Chance {
    /// The draws of this purpose for the things of these numbers.
    pub(crate) fn of(seed: u64, purpose: Purpose, numbers: &[u64]) -> Chance {
        let start = mixed(seed) ^ purpose as u64;
        let state = numbers.iter().fold(mixed(start), |state, number| mixed(state ^ *number));
        Chance { state }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = mixed(self.state);
        self.state
    }

    /// A number below this one; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True so many times of a thousand.
    pub(crate) fn hits(&mut self, permille: u32) -> bool {
        self.below(1_000) < permille.into()
    }

    /// An index into the weights, as likely as its weight says; None if all are 0.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let sum: u64 = weights.clone().map(u64::from).sum();
        let mut drawn = self.below(sum);
        for (index, weight) in weights.map(u64::from).enumerate() {
            if drawn < weight {
                return Some(index);
            }
            drawn -= weight;
        }
        None
    }

    /// A random UUID (version 4).
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let version = (high & 0xffff_ffff_ffff_0fff) | 0x4000;
        let variant = (low & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            version >> 32,
            (version >> 16) & 0xffff,
            version & 0xffff,
            variant >> 48,
            variant & 0xffff_ffff_ffff
        )
    }

    /// 32 hexadecimal digits.
    pub(crate) fn secret(&mut self) -> String {
        format!("{:016x}{:016x}", self.next(), self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::{Chance, Purpose};

    #[test]
    fn draws_depend_on_seed_purpose_and_numbers() {
        let draw = |seed, purpose, numbers: &[u64]| Chance::of(seed, purpose, numbers).next();
        let first = draw(1, Purpose::Job, &[1, 2]);
        assert_eq!(first, draw(1, Purpose::Job, &[1, 2]));
        for other in [
            draw(2, Purpose::Job, &[1, 2]),
            draw(1, Purpose::Rival, &[1, 2]),
            draw(1, Purpose::Job, &[2, 1]),
            draw(1, Purpose::Job, &[1]),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn weights_are_obeyed() {
        let mut counts = [0; 3];
        for number in 0..10_000 {
            let index = Chance::of(7, Purpose::Job, &[number]).weighted([1, 0, 3].into_iter()).unwrap();
            counts[index] += 1;
        }
        assert!(counts[1] == 0 && (2_200..2_800).contains(&counts[0]), "{counts:?}");
        assert_eq!(Chance::of(7, Purpose::Job, &[]).weighted([0, 0].into_iter()), None);
    }

    #[test]
    fn a_uuid_has_its_form() {
        let uuid = Chance::of(7, Purpose::Identity, &[1]).uuid();
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
        assert!(uuid[14..].starts_with('4') && uuid[19..].starts_with(['8', '9', 'a', 'b']), "{uuid}");
    }
}
