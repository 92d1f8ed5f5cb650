//! What an attempt that money was held for is charged.
//!
//! The vendor's own usage counts, as far as an adapter passes it on; but never less than what the host
//! itself has seen delivered, or has read in the vendor's own words. Where nothing was said, nobody
//! knows better than the worst case.

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
    /// The host's own count: the usage was less.
    Floor,
    /// All that was held.
    Hold,
}

/// Tokens that were used at the least, whatever the usage says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Of input, whatever its class.
    pub input: u64,
    /// Of output, reasoning among it.
    pub output: u64,
}

/// A charge and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// For all accounts.
    pub amount: NanoUsd,
    /// What it goes by.
    pub basis: Basis,
    /// The usage was less than the host's own count.
    pub disputed: bool,
}

/// Decides. `usage`: the vendor's, or what an adapter makes of it; `floor`: what the host has seen.
pub fn settle(price: &Price, held: NanoUsd, end: End, usage: Option<&Usage>, floor: Floor) -> Charge {
    if end == End::Unserved && usage.is_none() && floor == Floor::default() {
        return Charge { amount: NanoUsd::ZERO, basis: Basis::Nothing, disputed: false };
    }
    let said = usage.copied().unwrap_or_default();
    let missing = Floor {
        input: floor.input.saturating_sub(said.input_tokens()),
        output: floor.output.saturating_sub(said.output_tokens()),
    };
    let counted = Usage {
        input: said.input.saturating_add(missing.input),
        output: said.output.saturating_add(missing.output),
        ..said
    };
    // What cannot be priced costs what was held at least.
    let cost = price.cost(&counted);
    let known = match end {
        // It would not serve, and yet has said what it used.
        End::Unserved => true,
        End::Whole => usage.is_some(),
        End::Broken => false,
    };
    match cost {
        Ok(amount) if known => {
            let disputed = missing != Floor::default();
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
        let settle = |end, usage: Option<Usage>, output| {
            let floor = Floor { input: 0, output };
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

    /// An adapter says less than the vendor has said, or that there was no answer at all.
    #[test]
    fn what_the_vendor_itself_has_said_counts_whatever_the_adapter_says() {
        let floor = Floor { input: 10, output: 20 };
        let settle = |end, usage: Option<Usage>| {
            let charge = settle(&price(), HELD, end, usage.as_ref(), floor);
            (charge.amount.nanos(), charge.basis, charge.disputed)
        };
        assert_eq!(settle(End::Whole, Some(usage(1, 1))), (50, Basis::Floor, true));
        assert_eq!(settle(End::Whole, Some(usage(1, 20))), (50, Basis::Floor, true));
        assert_eq!(settle(End::Unserved, None), (50, Basis::Floor, true));
        assert_eq!(settle(End::Whole, None), (1000, Basis::Hold, false));
        let cached = Usage { cached_input: 9, reasoning: 19, ..usage(1, 1) };
        assert_eq!(settle(End::Whole, Some(cached)), (50, Basis::Usage, false), "in whatever classes");
    }

    #[test]
    fn paid_calls_without_a_price_cost_what_was_held() {
        let searched = Usage { calls: 1, ..usage(1, 1) };
        let charge = settle(&price(), HELD, End::Whole, Some(&searched), Floor::default());
        assert_eq!((charge.amount, charge.basis), (HELD, Basis::Hold));
    }

    proptest! {
        /// Nobody pays less than what the host has seen, and an attempt that was served is never free.
        #[test]
        fn what_was_seen_is_paid(
            said in prop::option::of((0_u64..600, 0_u64..600)), input in 0_u64..600, output in 0_u64..600,
            end in prop::sample::select(vec![End::Unserved, End::Whole, End::Broken]),
        ) {
            let said = said.map(|(input, output)| usage(input, output));
            let charge = settle(&price(), HELD, end, said.as_ref(), Floor { input, output });
            let said = said.unwrap_or_default();
            let truth = price().cost(&usage(said.input.max(input), said.output.max(output))).unwrap();
            prop_assert!(charge.amount >= truth);
            prop_assert!(charge.basis == Basis::Hold || charge.amount == truth);
            prop_assert!(end == End::Unserved || charge.basis != Basis::Nothing);
        }
    }
}
