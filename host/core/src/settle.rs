//! What an attempt that money was held for is charged.
//!
//! The vendor's own usage counts, but never less than what the host has seen delivered. Where nothing
//! was said, nobody knows better than the worst case.

use crate::money::NanoUsd;
use crate::price::{Price, Usage};

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was sent, or the vendor said that it would not serve it.
    Unserved,
    /// The answer came to its end.
    Whole,
    /// It was broken off, by whomever: what was said of usage may be a part of it.
    Broken,
}

/// What a charge goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// Nothing was served, or nothing is known of it.
    #[default]
    Nothing,
    /// The vendor's usage.
    Usage,
    /// The host's own count: the vendor's usage was less.
    Floor,
    /// All that was held.
    Hold,
}

/// A charge and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// For all accounts.
    pub amount: NanoUsd,
    /// What it goes by.
    pub basis: Basis,
    /// The vendor's usage was less than what it delivered.
    pub disputed: bool,
}

/// Decides. `usage`: the vendor's; `floor`: tokens of output that the host has seen, at least.
pub fn settle(price: &Price, held: NanoUsd, end: End, usage: Option<&Usage>, floor: u64) -> Charge {
    if end == End::Unserved && usage.is_none() {
        return Charge { amount: NanoUsd::ZERO, basis: Basis::Nothing, disputed: false };
    }
    let said = usage.copied().unwrap_or_default();
    let missing = floor.saturating_sub(said.output_tokens());
    let counted = Usage { output: said.output.saturating_add(missing), ..said };
    // What cannot be priced costs what was held at least.
    let cost = price.cost(&counted);
    let known = usage.is_some() && end != End::Broken;
    match cost {
        Ok(amount) if known => {
            let disputed = missing > 0;
            Charge { amount, basis: if disputed { Basis::Floor } else { Basis::Usage }, disputed }
        }
        // A running total is less than the truth; an overrun is not.
        Ok(so_far) => Charge { amount: so_far.max(held), basis: Basis::Hold, disputed: false },
        Err(_) => Charge { amount: held, basis: Basis::Hold, disputed: false },
    }
}

impl Basis {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Nothing => "nothing",
            Basis::Usage => "usage",
            Basis::Floor => "floor",
            Basis::Hold => "hold",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::price::PerMillion;

    const HELD: NanoUsd = NanoUsd::from_nanos(1000);

    fn price() -> Price {
        Price::flat(PerMillion(NanoUsd::from_nanos(1_000_000)), PerMillion(NanoUsd::from_nanos(2_000_000)))
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn each_end_has_its_rule() {
        let settle = |end, usage: Option<Usage>, floor| {
            let charge = settle(&price(), HELD, end, usage.as_ref(), floor);
            (charge.amount.nanos(), charge.basis, charge.disputed)
        };
        let table = [
            (End::Unserved, None, 0, (0, Basis::Nothing, false)),
            (End::Unserved, Some(usage(3, 0)), 0, (3, Basis::Usage, false)),
            (End::Whole, Some(usage(10, 20)), 20, (50, Basis::Usage, false)),
            (End::Whole, Some(usage(10, 20)), 21, (52, Basis::Floor, true)),
            (End::Whole, Some(usage(1, 1)), 400, (801, Basis::Floor, true)),
            (End::Whole, Some(usage(10, 2000)), 0, (4010, Basis::Usage, false)),
            (End::Whole, None, 7, (1000, Basis::Hold, false)),
            (End::Broken, None, 7, (1000, Basis::Hold, false)),
            (End::Broken, Some(usage(10, 20)), 20, (1000, Basis::Hold, false)),
            (End::Broken, Some(usage(10, 2000)), 20, (4010, Basis::Hold, false)),
            (End::Broken, None, 600, (1200, Basis::Hold, false)),
        ];
        for (end, usage, floor, wanted) in table {
            assert_eq!(settle(end, usage, floor), wanted, "{end:?} {usage:?} {floor}");
        }
    }

    #[test]
    fn paid_calls_without_a_price_cost_what_was_held() {
        let searched = Usage { calls: 1, ..usage(1, 1) };
        let charge = settle(&price(), HELD, End::Whole, Some(&searched), 0);
        assert_eq!((charge.amount, charge.basis), (HELD, Basis::Hold));
    }

    proptest! {
        /// Nobody pays less than what was delivered, and an attempt that was served is never free.
        #[test]
        fn what_was_delivered_is_paid(input in 0_u64..100, output in 0_u64..600, floor in 0_u64..600, whole: bool) {
            let end = if whole { End::Whole } else { End::Broken };
            let charge = settle(&price(), HELD, end, Some(&usage(input, output)), floor);
            let truth = price().cost(&usage(input, output.max(floor))).unwrap();
            prop_assert!(charge.amount >= truth.min(HELD));
            prop_assert!(end == End::Broken || charge.amount == truth);
        }
    }
}
