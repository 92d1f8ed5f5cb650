//! What rivals bid: by their kind, the job and the seed, and by nothing a provider does.

use serde::Deserialize;

use crate::market::chance::{Chance, Purpose};
use crate::market::job::Job;
use crate::market::money::NanoUsd;

/// Words of an answer that a rival reckons with if the job has no limit: 200.
const ANSWER_WORDS_GUESSED: u64 = 200;

/// One who bids against the providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RivalTable")]
pub struct Rival {
    pub pricing: Pricing,
    /// How many of a thousand jobs it does not see.
    pub absent_permille: u32,
}

/// How a rival finds its price.
#[derive(Clone, Debug)]
pub enum Pricing {
    /// Always this.
    Flat { price: NanoUsd },
    /// What it reckons to pay, and a margin, both with an error of up to `noise_permille`.
    CostPlus {
        /// For a million words of a prompt, and of an answer.
        input_per_million: NanoUsd,
        output_per_million: NanoUsd,
        margin_permille: u32,
        noise_permille: u32,
    },
    /// So much below the lowest of the other rivals, or below the credit if
    /// there is none; but not below the floor.
    Aggressive { undercut_permille: u32, floor: NanoUsd },
}

/// What a rival offers for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RivalBid {
    /// Index of the rival in the script.
    pub(crate) rival: usize,
    pub(crate) amount: NanoUsd,
    /// When it comes, in thousandths of the time that the job is open.
    pub(crate) after_permille: u32,
}

/// A rival as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RivalTable {
    kind: KindName,
    price: Option<NanoUsd>,
    input_per_million: Option<NanoUsd>,
    output_per_million: Option<NanoUsd>,
    margin_permille: Option<u32>,
    noise_permille: Option<u32>,
    undercut_permille: Option<u32>,
    floor: Option<NanoUsd>,
    #[serde(default)]
    absent_permille: u32,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Flat,
    CostPlus,
    Aggressive,
}

/// What each rival bids on the job, in the order of the script; those who are
/// absent, or want more than the credit, bid nothing.
pub(crate) fn bids(rivals: &[Rival], seed: u64, job: &Job, bid_min: NanoUsd) -> Vec<RivalBid> {
    let present = rivals.iter().enumerate().filter_map(|(number, rival)| {
        let mut chance = Chance::of(seed, Purpose::Rival, &[job.key[0], job.key[1], number as u64]);
        let absent = chance.hits(rival.absent_permille);
        let after_permille = chance.below(900) as u32;
        (!absent).then(|| (number, rival, rival.price(job, &mut chance), after_permille))
    });
    let present: Vec<_> = present.collect();
    // Those who undercut look at the others, who have their prices by now.
    let lowest = present.iter().filter_map(|(_, _, price, _)| *price).min().unwrap_or(job.credit);
    let offers = present.into_iter().filter_map(|(rival, Rival { pricing, .. }, price, after_permille)| {
        let price = match pricing {
            Pricing::Flat { .. } | Pricing::CostPlus { .. } => price,
            Pricing::Aggressive { undercut_permille, floor } => {
                let kept = 1_000_u32.saturating_sub(*undercut_permille);
                lowest.permille(kept.into()).map(|price| price.max(*floor))
            }
        };
        Some(RivalBid { rival, amount: price?.max(bid_min), after_permille })
    });
    offers.filter(|offer| offer.amount <= job.credit).collect()
}

// === impl Rival ===

impl Rival {
    /// Its kind as the script names it.
    pub(crate) fn kind(&self) -> &'static str {
        match self.pricing {
            Pricing::Flat { .. } => "flat",
            Pricing::CostPlus { .. } => "cost_plus",
            Pricing::Aggressive { .. } => "aggressive",
        }
    }

    /// Its price by its own lights; None for one who looks at the others, or
    /// if the price is beyond all amounts.
    fn price(&self, job: &Job, chance: &mut Chance) -> Option<NanoUsd> {
        match &self.pricing {
            Pricing::Flat { price } => Some(*price),
            Pricing::CostPlus { input_per_million, output_per_million, margin_permille, noise_permille } => {
                let answer_words = job.max_tokens.map_or(ANSWER_WORDS_GUESSED, u64::from);
                let input = input_per_million.parts(job.prompt_words, 1_000_000)?;
                let cost = input.plus(output_per_million.parts(answer_words, 1_000_000)?)?;
                let noise = u64::from(*noise_permille);
                let error = chance.between(1_000_u64.saturating_sub(noise), 1_000 + noise);
                cost.permille(1_000 + u64::from(*margin_permille))?.permille(error)
            }
            Pricing::Aggressive { .. } => None,
        }
    }
}

impl TryFrom<RivalTable> for Rival {
    type Error = String;

    fn try_from(table: RivalTable) -> Result<Rival, String> {
        let RivalTable { kind, absent_permille, .. } = table;
        let of_flat = [("price", table.price.is_some())];
        let of_cost_plus = [
            ("input_per_million", table.input_per_million.is_some()),
            ("output_per_million", table.output_per_million.is_some()),
            ("margin_permille", table.margin_permille.is_some()),
            ("noise_permille", table.noise_permille.is_some()),
        ];
        let of_aggressive =
            [("undercut_permille", table.undercut_permille.is_some()), ("floor", table.floor.is_some())];
        let strange = match kind {
            KindName::Flat => [&of_cost_plus[..], &of_aggressive].concat(),
            KindName::CostPlus => [&of_flat[..], &of_aggressive].concat(),
            KindName::Aggressive => [&of_flat[..], &of_cost_plus].concat(),
        };
        if let Some((name, _)) = strange.iter().find(|(_, is_there)| *is_there) {
            return Err(format!("`{name}` is not of this kind of rival"));
        }
        let pricing = match kind {
            KindName::Flat => Pricing::Flat { price: wanted("price", table.price)? },
            KindName::CostPlus => Pricing::CostPlus {
                input_per_million: wanted("input_per_million", table.input_per_million)?,
                output_per_million: wanted("output_per_million", table.output_per_million)?,
                margin_permille: wanted("margin_permille", table.margin_permille)?,
                noise_permille: table.noise_permille.unwrap_or(0),
            },
            KindName::Aggressive => Pricing::Aggressive {
                undercut_permille: wanted("undercut_permille", table.undercut_permille)?,
                floor: table.floor.unwrap_or_default(),
            },
        };
        Ok(Rival { pricing, absent_permille })
    }
}

fn wanted<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("this kind of rival wants `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::{Rival, bids};
    use crate::market::job::{Given, Job};
    use crate::market::money::NanoUsd;

    const BID_MIN: NanoUsd = NanoUsd::from_nanos(10_000_000);

    fn job(number: u64, words: u32, credit: &str) -> Job {
        let given = format!(r#"{{"prompt_words": {words}, "max_tokens": 1000, "credit": {credit}}}"#);
        let given: Given = serde_json::from_str(&given).unwrap();
        Job::given(&given, &Default::default(), number).unwrap()
    }

    fn amounts(rivals: &str, job: &Job) -> Vec<(usize, String)> {
        let rivals: Vec<Rival> = serde_json::from_str(rivals).unwrap();
        let bids = bids(&rivals, 7, job, BID_MIN);
        bids.iter().map(|bid| (bid.rival, bid.amount.to_string())).collect()
    }

    #[test]
    fn each_kind_has_its_price() {
        let job = job(1, 2_000, "0.1");
        let flat = r#"{"kind": "flat", "price": 0.05}"#;
        // 2,000 words at 5 a million and 1,000 at 10 are 0.02, and half of it again.
        let cost_plus = r#"{"kind": "cost_plus", "input_per_million": 5, "output_per_million": 10, "margin_permille": 500}"#;
        let aggressive = r#"{"kind": "aggressive", "undercut_permille": 100}"#;
        let all = format!("[{aggressive}, {flat}, {cost_plus}]");
        let expected =
            [(0, "0.027"), (1, "0.05"), (2, "0.03")].map(|(rival, amount)| (rival, amount.to_owned()));
        assert_eq!(amounts(&all, &job), expected);
        assert_eq!(amounts(&format!("[{aggressive}]"), &job), [(0, "0.09".to_owned())], "below the credit");
        let floor = r#"[{"kind": "aggressive", "undercut_permille": 990, "floor": 0.03}]"#;
        assert_eq!(amounts(floor, &job), [(0, "0.03".to_owned())]);
        assert_eq!(
            amounts(r#"[{"kind": "flat", "price": 0.001}]"#, &job),
            [(0, "0.01".to_owned())],
            "the minimum"
        );
        assert_eq!(amounts(r#"[{"kind": "flat", "price": 0.2}]"#, &job), [], "beyond the credit");
    }

    #[test]
    fn noise_and_absence_are_as_often_as_said() {
        let noisy = r#"[{"kind": "cost_plus", "input_per_million": 50, "output_per_million": 0,
                         "margin_permille": 0, "noise_permille": 100, "absent_permille": 250}]"#;
        let prices: Vec<_> = (0..2_000).flat_map(|number| amounts(noisy, &job(number, 1_000, "1"))).collect();
        assert!((1_400..1_600).contains(&prices.len()), "{}", prices.len());
        let nanos = |price: &str| NanoUsd::read(price).unwrap().nanos();
        let (low, high) = (nanos("0.045"), nanos("0.055"));
        assert!(prices.iter().all(|(_, price)| (low..=high).contains(&nanos(price))));
        let distinct: std::collections::BTreeSet<_> = prices.iter().collect();
        assert!(distinct.len() > 100, "{}", distinct.len());
    }
}
