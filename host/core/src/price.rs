//! What a call costs: prices by billing class, tiers by the length of the context, and the most that
//! a call can cost before it is made.

use std::sync::Arc;

use crate::money::{NanoUsd, Overflow};

/// What a million tokens of one class cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub NanoUsd);

/// Prices of tokens by class. Of a class that is not priced apart the class says what it goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input that was neither read from nor written to a cache.
    pub input: PerMillion,
    /// Input that was read from a cache; else by `input`.
    pub cached_input: Option<PerMillion>,
    /// Input that was written to a cache; else by `input`.
    pub cache_write: Option<PerMillion>,
    /// Output without reasoning.
    pub output: PerMillion,
    /// Reasoning; else by `output`.
    pub reasoning: Option<PerMillion>,
}

/// Rates of calls with more input than so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// All input tokens of the call together, whatever their class.
    pub above_input: u64,
    /// For all tokens of such a call.
    pub rates: Rates,
}

/// The price of one upstream's model; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price(Arc<Sheet>);

/// All that a price is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// For calls below the first tier.
    pub rates: Rates,
    /// With rising bounds.
    pub tiers: Vec<Tier>,
    /// For the call as such.
    pub request: NanoUsd,
    /// For each paid tool call; none: they are not priced.
    pub call: Option<NanoUsd>,
    /// For each second of the model's time, as far as that is reported; none: it is not charged for.
    pub second: Option<NanoUsd>,
}

/// What was used, by class. The classes do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that were neither read from nor written to a cache.
    pub input: u64,
    /// Tokens read from a cache.
    pub cached_input: u64,
    /// Tokens written to a cache.
    pub cache_write: u64,
    /// Tokens without reasoning.
    pub output: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
    /// Paid tool calls.
    pub calls: u64,
    /// Milliseconds of the model's time.
    pub millis: u64,
}

/// Why a usage has no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCost {
    /// It contains what the price does not name.
    #[error("paid tool calls are not priced")]
    CallsUnpriced,
}

/// Tokens in the unit of the rates.
const MILLION: u128 = 1_000_000;

/// The same for seconds.
const MILLIS: u128 = 1000;

impl Rates {
    fn cached_input(&self) -> PerMillion {
        self.cached_input.unwrap_or(self.input)
    }

    fn cache_write(&self) -> PerMillion {
        self.cache_write.unwrap_or(self.input)
    }

    fn reasoning(&self) -> PerMillion {
        self.reasoning.unwrap_or(self.output)
    }

    /// The dearest class that an input token can turn out to be of.
    fn dearest_input(&self) -> PerMillion {
        self.input.max(self.cached_input()).max(self.cache_write())
    }

    fn dearest_output(&self) -> PerMillion {
        self.output.max(self.reasoning())
    }
}

impl Price {
    /// Prices by this sheet.
    pub fn new(mut sheet: Sheet) -> Price {
        sheet.tiers.sort_by_key(|tier| tier.above_input);
        Price(Arc::new(sheet))
    }

    /// A price of input and output alone.
    pub fn flat(input: PerMillion, output: PerMillion) -> Price {
        Price::new(Sheet { rates: Rates { input, output, ..Rates::default() }, ..Sheet::default() })
    }

    /// What it is made of.
    pub fn sheet(&self) -> &Sheet {
        &self.0
    }

    /// What this usage costs, rounded up once: no call with a price is free, and none costs more than
    /// [`NanoUsd::ATTEMPT_MAX`].
    ///
    /// # Errors
    ///
    /// [`NoCost`] where it contains what is not priced.
    pub fn cost(&self, usage: &Usage) -> Result<NanoUsd, NoCost> {
        let call = match (usage.calls, self.0.call) {
            (0, _) => NanoUsd::ZERO,
            (_, None) => return Err(NoCost::CallsUnpriced),
            (_, Some(call)) => call,
        };
        Ok(self.exact_cost(usage, call).unwrap_or(NanoUsd::ATTEMPT_MAX).min(NanoUsd::ATTEMPT_MAX))
    }

    fn exact_cost(&self, usage: &Usage, call: NanoUsd) -> Result<NanoUsd, Overflow> {
        let sheet = &*self.0;
        let rates = self.rates_at(usage.input_tokens());
        let tokens = [
            (usage.input, rates.input),
            (usage.cached_input, rates.cached_input()),
            (usage.cache_write, rates.cache_write()),
            (usage.output, rates.output),
            (usage.reasoning, rates.reasoning()),
        ];
        let mut exact = Exact::default();
        for (count, rate) in tokens {
            exact.add_tokens(count, rate)?;
        }
        exact.add(usage.calls, call, 1)?;
        exact.add(usage.millis, sheet.second.unwrap_or_default(), MILLIS)?;
        exact.rounded_up()?.checked_add(sheet.request)
    }

    /// A second of the model's time costs something: [`Price::worst`] is no bound then.
    pub fn counts_seconds(&self) -> bool {
        self.0.second.is_some_and(|second| second > NanoUsd::ZERO)
    }

    /// The most that a call can cost with so many tokens of input and of output, whatever their class,
    /// without paid tool calls and without what its seconds cost. A call with less input may be in an earlier tier, and that may be dearer.
    ///
    /// # Errors
    ///
    /// [`Overflow`] where that is more than [`NanoUsd::ATTEMPT_MAX`].
    pub fn worst(&self, input_max: u64, output_max: u64) -> Result<NanoUsd, Overflow> {
        let reachable = self.0.tiers.iter().filter(|tier| tier.above_input < input_max);
        let (mut input, mut output) = (self.0.rates.dearest_input(), self.0.rates.dearest_output());
        for Tier { rates, .. } in reachable {
            input = input.max(rates.dearest_input());
            output = output.max(rates.dearest_output());
        }
        let mut exact = Exact::default();
        exact.add_tokens(input_max, input)?;
        exact.add_tokens(output_max, output)?;
        let worst = exact.rounded_up()?.checked_add(self.0.request)?;
        if worst <= NanoUsd::ATTEMPT_MAX { Ok(worst) } else { Err(Overflow) }
    }

    /// The most tokens of output with which a call of so much input costs no more than `money`; none
    /// where the input alone does. Without a price of output there is no bound: `u64::MAX`.
    pub fn output_within(&self, input_max: u64, money: NanoUsd) -> Option<u64> {
        let fits = |output| self.worst(input_max, output).is_ok_and(|cost| cost <= money);
        if !fits(0) {
            return None;
        }
        if fits(u64::MAX) {
            return Some(u64::MAX);
        }
        // The worst case rises with the output: the last that fits is found by halves.
        let (mut good, mut bad) = (0, u64::MAX);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) { good = middle } else { bad = middle }
        }
        Some(good)
    }

    fn rates_at(&self, input: u64) -> &Rates {
        let tier = self.0.tiers.iter().rev().find(|tier| input > tier.above_input);
        tier.map_or(&self.0.rates, |tier| &tier.rates)
    }
}

impl Usage {
    /// Tokens of input of all classes.
    pub fn input_tokens(&self) -> u64 {
        self.input.saturating_add(self.cached_input).saturating_add(self.cache_write)
    }

    /// Tokens of output of all classes.
    pub fn output_tokens(&self) -> u64 {
        self.output.saturating_add(self.reasoning)
    }
}

/// A sum in millionths of a nano-dollar, so that rounding comes once.
#[derive(Default)]
struct Exact(u128);

impl Exact {
    fn add_tokens(&mut self, count: u64, rate: PerMillion) -> Result<(), Overflow> {
        self.add(count, rate.0, MILLION)
    }

    /// `count` times `each`, for which `per` is one unit.
    fn add(&mut self, count: u64, each: NanoUsd, per: u128) -> Result<(), Overflow> {
        // The product fits: both are of 64 bits; scaled, it may not.
        let exact = (u128::from(count) * u128::from(each.nanos())).checked_mul(MILLION / per);
        let sum = exact.and_then(|exact| self.0.checked_add(exact));
        self.0 = sum.ok_or(Overflow)?;
        Ok(())
    }

    fn rounded_up(self) -> Result<NanoUsd, Overflow> {
        u64::try_from(self.0.div_ceil(MILLION)).map(NanoUsd::from_nanos).map_err(|_| Overflow)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn per_million(nanos: u64) -> PerMillion {
        PerMillion(NanoUsd::from_nanos(nanos))
    }

    #[test]
    fn cost_is_by_class_and_rounded_up_once() {
        let rates = Rates {
            input: per_million(3),
            cached_input: Some(per_million(1)),
            cache_write: Some(per_million(4)),
            output: per_million(5),
            reasoning: None,
        };
        let price = Price::new(Sheet { rates, ..Sheet::default() });
        let cost = |usage| price.cost(&usage).map(NanoUsd::nanos);
        assert_eq!(cost(Usage::default()), Ok(0));
        assert_eq!(cost(Usage { input: 1, ..Usage::default() }), Ok(1));
        // Five fractions of a nano-dollar are one.
        let each =
            Usage { input: 1, cached_input: 1, cache_write: 1, output: 1, reasoning: 1, ..Usage::default() };
        assert_eq!(cost(each), Ok(1));
        let million = Usage {
            input: 1_000_000,
            cached_input: 1_000_000,
            cache_write: 1_000_000,
            output: 1_000_000,
            reasoning: 1_000_000,
            ..Usage::default()
        };
        assert_eq!(cost(million), Ok(3 + 1 + 4 + 5 + 5));
    }

    #[test]
    fn calls_seconds_and_requests_are_priced_or_refused() {
        let sheet = Sheet {
            request: NanoUsd::from_nanos(7),
            second: Some(NanoUsd::from_nanos(1000)),
            ..Sheet::default()
        };
        let price = Price::new(sheet.clone());
        let cost = |price: &Price, calls, millis| price.cost(&Usage { calls, millis, ..Usage::default() });
        assert_eq!(cost(&price, 0, 1500), Ok(NanoUsd::from_nanos(7 + 1500)));
        assert_eq!(cost(&price, 1, 0), Err(NoCost::CallsUnpriced));
        let price = Price::new(Sheet { call: Some(NanoUsd::from_nanos(11)), ..sheet });
        assert_eq!(cost(&price, 2, 0), Ok(NanoUsd::from_nanos(7 + 22)));
    }

    #[test]
    fn a_tier_prices_the_whole_call() {
        let long = Rates { input: per_million(20), output: per_million(30), ..Rates::default() };
        let short = Rates { input: per_million(10), output: per_million(15), ..Rates::default() };
        let tiers = vec![Tier { above_input: 200_000, rates: long }];
        let price = Price::new(Sheet { rates: short, tiers, ..Sheet::default() });
        let cost = |input, cached_input| {
            price
                .cost(&Usage { input, cached_input, output: 1_000_000, ..Usage::default() })
                .map(NanoUsd::nanos)
        };
        assert_eq!(cost(200_000, 0), Ok(2 + 15));
        assert_eq!(cost(200_001, 0), Ok(5 + 30), "4.00002 and 30, rounded up once");
        assert_eq!(cost(100_001, 100_000), Ok(5 + 30), "cached input counts for the length");
    }

    #[test]
    fn what_no_call_costs_is_not_held_and_costs_the_most() {
        let price = Price::flat(per_million(u64::MAX), per_million(1));
        assert_eq!(price.worst(2_000_000, 0), Err(Overflow));
        assert_eq!(price.worst(u64::MAX, u64::MAX), Err(Overflow));
        let usage = Usage { input: 1_000_000, output: 1, ..Usage::default() };
        assert_eq!(price.cost(&usage), Ok(NanoUsd::ATTEMPT_MAX));
        let (most, dollar) = (100_000, Price::flat(per_million(1_000_000_000_000_000), per_million(0)));
        assert_eq!(dollar.worst(most, 0), Ok(NanoUsd::ATTEMPT_MAX));
        assert_eq!(dollar.worst(most + 1, 0), Err(Overflow));
        let cost = |input| dollar.cost(&Usage { input, ..Usage::default() }).map(NanoUsd::nanos);
        assert_eq!((cost(most - 1), cost(most + 1)), (Ok(99_999_000_000_000), Ok(100_000_000_000_000)));
        assert_eq!(price.output_within(2_000_000, NanoUsd::from_nanos(u64::MAX)), None);
    }

    fn any_rates() -> impl Strategy<Value = Rates> {
        let rate = || (0_u64..50_000_000_000).prop_map(per_million);
        let maybe = || prop::option::of((0_u64..50_000_000_000).prop_map(per_million));
        (rate(), maybe(), maybe(), rate(), maybe()).prop_map(
            |(input, cached_input, cache_write, output, reasoning)| Rates {
                input,
                cached_input,
                cache_write,
                output,
                reasoning,
            },
        )
    }

    fn any_price() -> impl Strategy<Value = Price> {
        let tier = (0_u64..300_000, any_rates()).prop_map(|(above_input, rates)| Tier { above_input, rates });
        (any_rates(), prop::collection::vec(tier, 0..3), 0_u64..1_000_000).prop_map(
            |(rates, tiers, request)| {
                let request = NanoUsd::from_nanos(request);
                Price::new(Sheet { rates, tiers, request, ..Sheet::default() })
            },
        )
    }

    proptest! {
        /// No usage within the bounds costs more than the worst case, in whatever classes it comes.
        #[test]
        fn the_worst_case_bounds_every_cost(
            price in any_price(),
            classes in prop::array::uniform5(0_u64..200_000),
            spare in (0_u64..1000, 0_u64..1000),
        ) {
            let [input, cached_input, cache_write, output, reasoning] = classes;
            let usage = Usage { input, cached_input, cache_write, output, reasoning, ..Usage::default() };
            let worst = price.worst(usage.input_tokens() + spare.0, usage.output_tokens() + spare.1).unwrap();
            prop_assert!(price.cost(&usage).unwrap() <= worst);
        }

        /// The output that is found is the most that fits.
        #[test]
        fn the_output_within_some_money_is_the_most_that_fits(
            price in any_price(), input in 0_u64..100_000, money in 0_u64..10_000_000_000,
        ) {
            let money = NanoUsd::from_nanos(money);
            let fits = |output| price.worst(input, output).is_ok_and(|cost| cost <= money);
            match price.output_within(input, money) {
                None => prop_assert!(!fits(0)),
                Some(output) => {
                    prop_assert!(fits(output));
                    prop_assert!(output == u64::MAX || !fits(output + 1));
                }
            }
        }
    }
}
