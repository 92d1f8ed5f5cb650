//! What a strategy's own ended bids teach: the chance to win by price, what jobs really cost, and
//! whether winners are paid.
//!
//! Whoever won at a price would have won at a lower one, and whoever lost would have lost at a
//! higher one. Beyond what was tried, the chance falls with the square of the price.

use sluice_plugin::bid::{ClosedBid, Outcome};

/// Prices that are told apart: the ratio of bid to expected cost, per mille. Each is a fifth above
/// the one before, from just above the cost to a thousand times of it.
pub(crate) const STEPS: [u64; 38] = steps();

/// A chance of one, in billionths.
pub(crate) const ONE: u64 = 1_000_000_000;

/// Weight of one of the newest bids; halved with every 64 that came after.
const WEIGHT: u64 = 256;

/// Bids after which a weight is halved.
const HALVED_AFTER: usize = 64;

/// How often a weight is halved with each doubling between the costs of two jobs: rivals price small
/// and large jobs differently.
const HALVINGS_BY_SIZE: u32 = 2;

/// Weight of what is believed before anything is known: that of four of the newest bids.
const BELIEF_WEIGHT: u64 = 4 * WEIGHT;

/// The corrections of cost that are believed, per mille: half to four times of what was expected.
const COST_MIN: u64 = 500;
const COST_MAX: u64 = 4_000;

/// Ratios of one job's cost that count, per mille: a single one must not decide alone.
const ONE_COST_MAX: u64 = 10_000;

#[derive(Debug)]
pub(crate) struct Lessons {
    /// The chance to win at each of the steps, in billionths; never rising.
    chances: [u64; STEPS.len()],
    /// What jobs cost of what was expected, per mille.
    cost_permille: u64,
    /// What of their bids winners are paid, per mille.
    paid_permille: u64,
}

/// Of a job, by its expected cost: each is double the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u32);

/// A mean that begins with a belief.
struct Mean {
    sum: u64,
    weights: u64,
}

const fn steps() -> [u64; 38] {
    let mut steps = [1_050; 38];
    let mut step = 1;
    while step < steps.len() {
        steps[step] = steps[step - 1] * 6 / 5;
        step += 1;
    }
    steps
}

// === impl Lessons ===

impl Lessons {
    /// Of ended bids, the newest last, for jobs of this size: bids for others say less.
    pub(crate) fn of(recent: &[ClosedBid], size: Size) -> Lessons {
        let (mut wins, mut losses) = ([0; STEPS.len()], [0; STEPS.len()]);
        let (mut cost, mut paid) = (Mean::of(1_000), Mean::of(1_000));
        for (age, closed) in recent.iter().rev().enumerate() {
            let halvings = u32::try_from(age / HALVED_AFTER).unwrap_or(u32::MAX);
            let unlike = size.distance(Size::of(closed.expected)) * HALVINGS_BY_SIZE;
            let weight = WEIGHT.checked_shr(halvings.saturating_add(unlike)).unwrap_or(0);
            let Some(price) = permille(closed.bid, closed.expected) else { continue };
            if won(closed.outcome) {
                add(&mut wins, weight, |step| step <= price);
                if let Some(ratio) = permille(closed.actual, closed.expected).filter(|_| closed.actual > 0) {
                    cost.add(ratio.min(ONE_COST_MAX), weight);
                }
            } else {
                add(&mut losses, weight, |step| step >= price);
            }
            if served(closed.outcome) {
                paid.add(permille(closed.earned, closed.bid).unwrap_or(1_000).min(1_000), weight);
            }
        }
        let cost_permille = cost.value().clamp(COST_MIN, COST_MAX);
        Lessons { chances: chances(&wins, &losses), cost_permille, paid_permille: paid.value() }
    }

    /// What a job of this expected cost will cost, rounded up.
    pub(crate) fn cost(&self, expected: u64) -> u64 {
        let exact = u128::from(expected) * u128::from(self.cost_permille);
        u64::try_from(exact.div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    /// The profit to expect of a bid: nano-dollars, times a billion.
    pub(crate) fn profit(&self, bid: u64, expected: u64) -> i128 {
        let revenue = u128::from(bid) * u128::from(self.paid_permille) / 1_000;
        // Both are below 2^65, and a chance is below 2^30.
        let gain = revenue.cast_signed() - u128::from(self.cost(expected)).cast_signed();
        gain * i128::from(self.chance(bid, expected))
    }

    /// Between two steps it falls evenly: of two bids the higher one is never as likely to win.
    fn chance(&self, bid: u64, expected: u64) -> u64 {
        let price = permille(bid, expected).unwrap_or(u64::MAX);
        let above = STEPS.partition_point(|step| *step < price);
        let (Some(step), Some(chance)) = (STEPS.get(above), self.chances.get(above)) else {
            return self.chances[STEPS.len() - 1];
        };
        let below = above.checked_sub(1).map(|below| (STEPS[below], self.chances[below]));
        let (low, likely) = below.unwrap_or((0, ONE));
        // A chance is at most a billion, and the steps are a fifth apart: far below 2^63.
        likely - (likely - chance) * (price - low) / (step - low)
    }
}

/// What of `whole` a part is, rounded down; none of nothing.
fn permille(part: u64, whole: u64) -> Option<u64> {
    let exact = (u128::from(part) * 1_000).checked_div(u128::from(whole))?;
    Some(u64::try_from(exact).unwrap_or(u64::MAX))
}

fn won(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Paid | Outcome::Unpaid | Outcome::Failed => true,
        Outcome::Lost => false,
    }
}

fn served(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Paid | Outcome::Unpaid => true,
        Outcome::Failed | Outcome::Lost => false,
    }
}

fn add(counts: &mut [u64; STEPS.len()], weight: u64, teaches: impl Fn(u64) -> bool) {
    for (count, step) in counts.iter_mut().zip(STEPS) {
        if teaches(step) {
            *count += weight;
        }
    }
}

/// From the lowest step up: what is believed at a step follows from the wins at and below it.
fn chances(wins: &[u64; STEPS.len()], losses: &[u64; STEPS.len()]) -> [u64; STEPS.len()] {
    let mut chances = [ONE; STEPS.len()];
    let (mut lifted, mut below, mut price) = (ONE, ONE, 1_000);
    for (place, step) in STEPS.into_iter().enumerate() {
        let believed = lifted * price / step * price / step;
        let for_it = wins[place] * ONE + BELIEF_WEIGHT * believed;
        lifted = for_it / (wins[place] + BELIEF_WEIGHT);
        below = below.min(for_it / (wins[place] + losses[place] + BELIEF_WEIGHT));
        chances[place] = below;
        price = step;
    }
    chances
}

// === impl Size ===

impl Size {
    pub(crate) fn of(expected: u64) -> Size {
        Size(expected.checked_ilog2().unwrap_or(0))
    }

    /// Doublings between the two.
    fn distance(self, other: Size) -> u32 {
        self.0.abs_diff(other.0)
    }
}

// === impl Mean ===

impl Mean {
    fn of(belief: u64) -> Mean {
        Mean { sum: belief * BELIEF_WEIGHT, weights: BELIEF_WEIGHT }
    }

    fn add(&mut self, value: u64, weight: u64) {
        self.sum += value * weight;
        self.weights += weight;
    }

    /// Rounded up: a cost is never taken for less than it is.
    fn value(&self) -> u64 {
        self.sum.div_ceil(self.weights)
    }
}

#[cfg(test)]
mod tests {
    use sluice_plugin::bid::AMOUNT_MAX;

    use super::*;

    pub(crate) fn closed(permille: u64, outcome: Outcome) -> ClosedBid {
        let (expected, bid) = (1_000_000, 1_000 * permille);
        let (actual, earned) = match outcome {
            Outcome::Lost | Outcome::Failed => (0, 0),
            Outcome::Paid => (expected, bid),
            Outcome::Unpaid => (expected, 0),
        };
        ClosedBid { credit: 2 * bid, bid, expected, actual, earned, outcome }
    }

    /// For jobs of the same size.
    fn lessons(recent: &[ClosedBid]) -> Lessons {
        Lessons::of(recent, Size::of(1_000_000))
    }

    fn chance(lessons: &Lessons, permille: u64) -> u64 {
        lessons.chance(1_000 * permille, 1_000_000)
    }

    #[test]
    fn the_steps_reach_from_just_above_the_cost_to_a_thousand_times() {
        assert_eq!((STEPS[0], STEPS[1]), (1_050, 1_260));
        assert!(STEPS.is_sorted_by(|a, b| a < b));
        assert!((800_000..1_200_000).contains(&STEPS[37]), "{}", STEPS[37]);
    }

    #[test]
    fn without_a_past_nothing_is_corrected_and_dearer_is_less_likely() {
        let lessons = lessons(&[]);
        assert_eq!((lessons.cost_permille, lessons.paid_permille), (1_000, 1_000));
        assert!(lessons.chances.is_sorted_by(|a, b| a > b), "{:?}", lessons.chances);
        assert!(lessons.chances[37] > 0);
    }

    #[test]
    fn a_win_speaks_for_lower_prices_and_a_loss_against_higher_ones() {
        let before = lessons(&[]);
        let won = lessons(&[closed(2_000, Outcome::Paid); 20]);
        assert!(chance(&won, 1_500) > ONE * 9 / 10 && chance(&before, 1_500) < ONE / 2);
        assert!(chance(&won, 1_800) > ONE / 2, "{}", chance(&won, 1_800));
        let lost = lessons(&[closed(2_000, Outcome::Lost); 20]);
        assert_eq!(chance(&lost, 1_500), chance(&before, 1_500));
        assert!(chance(&lost, 2_176) < chance(&before, 2_176) / 4);
    }

    #[test]
    fn chances_never_rise_whatever_has_happened() {
        let mut chance = 1_u64;
        for length in 0..200 {
            let mut random = || {
                chance =
                    chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                chance >> 33
            };
            let outcomes = [Outcome::Lost, Outcome::Paid, Outcome::Unpaid, Outcome::Failed];
            let recent: Vec<ClosedBid> =
                (0..length).map(|_| closed(random() % 9_000, outcomes[(random() % 4) as usize])).collect();
            let lessons = lessons(&recent);
            assert!(lessons.chances.is_sorted_by(|a, b| a >= b), "{recent:?}");
            assert!(lessons.chances.iter().all(|chance| (1..=ONE).contains(chance)), "{recent:?}");
        }
    }

    #[test]
    fn costs_are_corrected_by_what_jobs_did_cost_within_bounds() {
        let dear = ClosedBid { actual: 2_000_000, ..closed(3_000, Outcome::Paid) };
        assert!((1_800..2_000).contains(&lessons(&[dear; 40]).cost_permille));
        assert!((1_100..1_300).contains(&lessons(&[dear]).cost_permille), "one alone says little");
        let absurd = ClosedBid { actual: AMOUNT_MAX, ..dear };
        assert_eq!(lessons(&[absurd; 256]).cost_permille, COST_MAX);
        let cheap = ClosedBid { actual: 1, ..dear };
        assert_eq!(lessons(&[cheap; 256]).cost_permille, COST_MIN);
        assert_eq!(lessons(&[closed(3_000, Outcome::Lost); 256]).cost_permille, 1_000);
    }

    #[test]
    fn unpaid_wins_lower_what_a_bid_is_worth() {
        let paid = lessons(&[closed(2_000, Outcome::Paid); 50]);
        let unpaid = lessons(&[closed(2_000, Outcome::Unpaid); 50]);
        assert_eq!(paid.paid_permille, 1_000);
        assert!(unpaid.paid_permille < 100);
        assert!(paid.profit(2_000_000, 1_000_000) > 0 && unpaid.profit(2_000_000, 1_000_000) < 0);
    }

    #[test]
    fn what_is_newer_weighs_more() {
        let (lost, won) = ([closed(2_000, Outcome::Lost); 128], [closed(2_000, Outcome::Paid); 64]);
        let better = lessons(&[&lost[..], &won[..]].concat());
        let worse = lessons(&[&won[..], &lost[..]].concat());
        assert!(chance(&better, 1_800) > chance(&worse, 1_800));
        assert!(chance(&better, 2_176) > 2 * chance(&worse, 2_176));
    }

    #[test]
    fn of_two_bids_the_higher_one_is_less_likely_though_no_step_lies_between() {
        let lessons = lessons(&[closed(1_500, Outcome::Lost); 20]);
        let chances =
            [1, 1_000, 1_050, 1_100, 1_200, 1_260, 1_261, 1_500].map(|price| chance(&lessons, price));
        assert!(chances.is_sorted_by(|a, b| a > b), "{chances:?}");
        assert_eq!(chance(&lessons, 1_260), lessons.chances[1]);
        assert_eq!(lessons.chance(AMOUNT_MAX, 1), lessons.chances[37]);
        assert_eq!(lessons.chance(AMOUNT_MAX, 0), lessons.chances[37]);
    }

    #[test]
    fn jobs_of_another_size_say_less_the_farther_off_they_are() {
        let lost = [closed(1_500, Outcome::Lost); 20];
        let seen_from = |expected: u64| Lessons::of(&lost, Size::of(expected)).chance(1_600, 1_000);
        let by_distance = [1_000_000, 2_000_000, 4_000_000, 16_000_000, 1_000_000_000].map(seen_from);
        assert!(by_distance.is_sorted_by(|a, b| a < b), "{by_distance:?}");
        assert_eq!(seen_from(500_000), seen_from(2_000_000));
        assert_eq!(seen_from(1_000_000_000), Lessons::of(&[], Size::of(1)).chance(1_600, 1_000));
    }

    #[test]
    fn amounts_at_their_largest_and_nothing_at_all_are_no_trouble() {
        let largest = ClosedBid {
            credit: AMOUNT_MAX,
            bid: AMOUNT_MAX,
            expected: 1,
            actual: AMOUNT_MAX,
            earned: AMOUNT_MAX,
            outcome: Outcome::Paid,
        };
        let nothing =
            ClosedBid { credit: 0, bid: 0, expected: 0, actual: 0, earned: 0, outcome: Outcome::Paid };
        for recent in [[largest; 256], [nothing; 256]] {
            let lessons = lessons(&recent);
            for amount in [0, 1, AMOUNT_MAX] {
                lessons.profit(amount, 0);
                lessons.profit(amount, AMOUNT_MAX);
            }
        }
    }
}
