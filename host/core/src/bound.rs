//! What a call is held for before it is sent: the most input that its bytes can be charged as, and
//! the output limit that the money allows.

use crate::demand::{Demand, NotBounded};
use crate::money::NanoUsd;
use crate::price::Price;

/// Output of a call that names no limit: so many tokens at most, whatever the model can do.
pub const OUTPUT_DEFAULT: u64 = 4096;

/// Fewer tokens of output than this are no answer: a call is refused before it is cut so short.
const OUTPUT_LEAST: u64 = 256;

/// What is known of an upstream's model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Tokens of input at most.
    pub context: Option<u64>,
    /// Tokens of output at most, in each of the answers. 0: it has none, as a model of embeddings; what a
    /// call of it can cost is its input, and no limit is written.
    pub max_output: Option<u64>,
    /// Tokens that an image or another part can cost at most that its bytes do not bound.
    pub part: Option<u64>,
}

/// Why nobody can say what a call costs at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// The vendor runs tools and charges for them.
    #[error("it asks for tools that the vendor runs and charges for")]
    ServerTools,
    /// Such as audio, which is priced apart.
    #[error("it asks for output other than text")]
    OtherOutput,
    /// A tier of service or the like.
    #[error("it asks for a service with prices of its own")]
    OtherRates,
    /// The model may be asked to take more than it usually does, at prices that nobody knows.
    #[error(
        "it is longer than the model's `context`, which its header for betas of the vendor's may lift: leave that out"
    )]
    Lifted,
    /// An image, a file or the like, of a model whose context is not known.
    #[error("it has parts whose cost their bytes do not bound, and the model's `context` is not known")]
    Parts,
    /// There is no place for a limit, and the model has none that is known.
    #[error(
        "its output has no limit: the adapter names no place for one, and the model's `max_output` is not known"
    )]
    Output,
    /// Nobody knows beforehand how long it takes.
    #[error(
        "its price counts seconds of the model's time (`second`), and nobody knows how many it will take"
    )]
    Seconds,
    /// The body cannot be read.
    #[error("its body has no cost that could be told")]
    Body(#[from] NotBounded),
    /// It is more than any call costs.
    #[error("its cost is beyond all measure")]
    Overflow,
}

/// What a call may be charged for at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Tokens of input at most.
    pub input: u64,
    /// Answers, each as long as the limit.
    pub choices: u64,
    /// What the client says of each answer's length.
    pub limit: Option<u64>,
    /// The host can write a limit, and there is output to be limited.
    pub limitable: bool,
    /// What the model can say at most.
    pub max_output: Option<u64>,
}

/// Money to be held, and the limit that it pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Funding {
    /// The worst case.
    pub amount: NanoUsd,
    /// Tokens of each answer at most.
    pub limit: u64,
    /// The limit differs from what the client says: it has to be written.
    pub write: bool,
}

impl Bounds {
    /// These, and for what they do not say, `others`.
    #[must_use]
    pub fn or(self, others: Bounds) -> Bounds {
        Bounds {
            context: self.context.or(others.context),
            max_output: self.max_output.or(others.max_output),
            part: self.part.or(others.part),
        }
    }
}

impl Ask {
    /// Reads what will be sent. `limit`: what stands where the limit is written; `limitable`: there is
    /// such a place; `choices`: as the client has asked for.
    ///
    /// # Errors
    ///
    /// [`Unbounded`]: under a cap it is not sent.
    pub fn read(
        body: &[u8],
        bounds: &Bounds,
        limit: Option<u64>,
        limitable: bool,
        choices: u64,
    ) -> Result<Ask, Unbounded> {
        let demand = Demand::read(body)?;
        if demand.server_tools > 0 {
            return Err(Unbounded::ServerTools);
        }
        if demand.other_output {
            return Err(Unbounded::OtherOutput);
        }
        if demand.other_rates {
            return Err(Unbounded::OtherRates);
        }
        let parts = match (demand.opaque, bounds.part.or(bounds.context)) {
            (0, _) => 0,
            (_, None) => return Err(Unbounded::Parts),
            (count, Some(each)) => u64::from(count).checked_mul(each).ok_or(Unbounded::Overflow)?,
        };
        let bytes = demand.text_bytes.checked_add(parts).ok_or(Unbounded::Overflow)?;
        // What is longer than the context is not served.
        let input = bounds.context.map_or(bytes, |context| bytes.min(context));
        if !limitable && bounds.max_output.is_none() {
            return Err(Unbounded::Output);
        }
        let choices = u64::from(demand.choices).max(choices).max(1);
        let limitable = limitable && bounds.max_output != Some(0);
        Ok(Ask { input, choices, limit, limitable, max_output: bounds.max_output })
    }

    /// What to hold, when `left` is left on the tightest account and `sharers` calls share it: of a
    /// call without a limit the fair share, but room for an answer at least.
    ///
    /// # Errors
    ///
    /// [`Unbounded::Seconds`], [`Unbounded::Overflow`].
    pub fn fund(&self, price: &Price, left: NanoUsd, sharers: u64) -> Result<Funding, Unbounded> {
        if price.counts_seconds() {
            return Err(Unbounded::Seconds);
        }
        let model = self.max_output.unwrap_or(u64::MAX);
        let limit = match self.limit {
            _ if !self.limitable => model,
            Some(limit) => limit.min(model),
            None => {
                let usual = model.min(OUTPUT_DEFAULT);
                let share = NanoUsd::from_nanos(left.nanos() / sharers.max(1));
                let affordable = |money| price.output_within(self.input, money).unwrap_or(0) / self.choices;
                let least = usual.min(OUTPUT_LEAST);
                usual.min(affordable(share).max(least))
            }
        };
        let output = limit.checked_mul(self.choices).ok_or(Unbounded::Overflow)?;
        let amount = price.worst(self.input, output).map_err(|_| Unbounded::Overflow)?;
        Ok(Funding { amount, limit, write: self.limitable && self.limit != Some(limit) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::price::{PerMillion, Sheet};

    const TEXT: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    const IMAGE: &[u8] =
        br#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#;

    fn price() -> Price {
        Price::flat(PerMillion(NanoUsd::from_nanos(1_000_000)), PerMillion(NanoUsd::from_nanos(1_000_000)))
    }

    fn known() -> Bounds {
        Bounds { context: Some(100_000), max_output: Some(8000), part: None }
    }

    #[test]
    fn what_has_no_bound_is_said() {
        let read = |body: &[u8], bounds| Ask::read(body, &bounds, None, true, 1).map(|ask| ask.input);
        assert!(read(TEXT, Bounds::default()).is_ok_and(|input| input > TEXT.len() as u64));
        assert_eq!(read(IMAGE, Bounds::default()), Err(Unbounded::Parts));
        assert_eq!(read(IMAGE, known()), Ok(100_000), "an image may fill the context");
        let part = Bounds { part: Some(1700), ..known() };
        assert!(read(IMAGE, part).is_ok_and(|input| (1700..5000).contains(&input)));
        let search = br#"{"messages":[],"web_search_options":{}}"#;
        assert_eq!(read(search, known()), Err(Unbounded::ServerTools));
        assert!(matches!(read(b"x", known()), Err(Unbounded::Body(_))));
        let unlimited = Ask::read(TEXT, &Bounds::default(), None, false, 1);
        assert_eq!(unlimited.map(|ask| ask.input), Err(Unbounded::Output));
    }

    #[test]
    fn a_model_without_output_costs_its_input_and_gets_no_limit() {
        let bounds = Bounds { max_output: Some(0), ..known() };
        let ask = Ask::read(TEXT, &bounds, Some(100), true, 1).unwrap();
        let funding = ask.fund(&price(), NanoUsd::ZERO, 1).unwrap();
        assert!(!ask.limitable && !funding.write);
        assert_eq!(funding.amount, price().worst(ask.input, 0).unwrap());
    }

    #[test]
    fn bounds_that_are_not_said_are_others() {
        let said = Bounds { max_output: Some(10), ..Bounds::default() };
        assert_eq!(said.or(known()), Bounds { context: Some(100_000), max_output: Some(10), part: None });
    }

    #[test]
    fn a_limit_is_the_clients_the_models_or_a_fair_share() {
        let fund = |limit, left, sharers| {
            let ask = Ask { input: 1000, choices: 2, limit, limitable: true, max_output: Some(8000) };
            let funding = ask.fund(&price(), NanoUsd::from_nanos(left), sharers).unwrap();
            (funding.limit, funding.amount.nanos(), funding.write)
        };
        assert_eq!(fund(Some(100), 0, 1), (100, 1200, false));
        assert_eq!(fund(Some(9000), 0, 1), (8000, 17_000, true));
        assert_eq!(fund(None, 1_000_000, 1), (4096, 9192, true));
        assert_eq!(fund(None, 5000, 1), (2000, 5000, true), "all that is left");
        assert_eq!(fund(None, 10_000, 4), (750, 2500, true), "the fair share");
        assert_eq!(fund(None, 10_000, 1000), (256, 1512, true), "room for an answer");
        let fixed = Ask { input: 0, choices: 1, limit: Some(5), limitable: false, max_output: Some(70) };
        let funding = fixed.fund(&price(), NanoUsd::ZERO, 1).unwrap();
        assert_eq!((funding.limit, funding.write), (70, false), "what cannot be written is not believed");
    }

    #[test]
    fn a_price_by_the_second_has_no_bound() {
        let ask = Ask { input: 10, choices: 1, limit: Some(1), limitable: true, max_output: None };
        let fund = |second| {
            let price = Price::new(Sheet { second, ..price().sheet().clone() });
            ask.fund(&price, NanoUsd::from_nanos(1000), 1).map(|funding| funding.amount.nanos())
        };
        assert_eq!(fund(Some(NanoUsd::from_nanos(1))), Err(Unbounded::Seconds));
        assert_eq!((fund(Some(NanoUsd::ZERO)), fund(None)), (Ok(11), Ok(11)));
    }

    proptest! {
        /// What is held covers the limit in all choices, whoever named it.
        #[test]
        fn what_is_held_pays_for_the_limit(
            input in 0_u64..100_000, choices in 1_u64..20, limit in prop::option::of(0_u64..20_000),
            limitable: bool, left in 0_u64..10_000_000, sharers in 0_u64..100,
        ) {
            let ask = Ask { input, choices, limit, limitable, max_output: Some(8000) };
            let funding = ask.fund(&price(), NanoUsd::from_nanos(left), sharers).unwrap();
            prop_assert_eq!(funding.amount, price().worst(input, funding.limit * choices).unwrap());
            prop_assert!(funding.limit <= 8000);
            prop_assert!(limitable || funding.limit == 8000);
        }
    }
}
