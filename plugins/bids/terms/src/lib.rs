//! What the shipped strategies have in common: the operator's terms, the least bid that keeps to
//! them, and the codes that say why there is none.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use sluice_plugin::bid::{AMOUNT_MAX, Decision, Job, OptionCost, PluginError, cheapest, most, per_hundred};

/// Why a job is skipped; the same in all shipped strategies, and listed in `plugins/bids/README.md`.
pub mod code {
    /// No target can serve it.
    pub const NO_TARGET: u16 = 1;
    /// The requester pays less than the least bid.
    pub const CREDIT: u16 = 2;
    /// The least bid is over a ceiling: the host's, or the strategy's own.
    pub const CEILING: u16 = 3;
    /// No bid covers the share of the worst cost that is wanted.
    pub const WORST: u16 = 4;
    /// No profit is to be expected at any bid.
    pub const NO_PROFIT: u16 = 5;
    /// It needs what no target offers.
    pub const NEEDS: u16 = 6;
    /// Its kind is not wanted.
    pub const KIND: u16 = 7;
    /// Its text is too short.
    pub const SHORT: u16 = 8;
    /// Its text is too long.
    pub const LONG: u16 = 9;
    /// Its text has an unwanted word.
    pub const UNWANTED: u16 = 10;
    /// Its text has none of the wanted words.
    pub const NOT_WANTED: u16 = 11;
    /// Its text could not be read whole this time.
    pub const UNREAD: u16 = 12;
}

/// The least that a bid must be.
#[derive(Debug)]
pub struct Terms {
    margin_percent: u64,
    floor: u64,
    ceiling: u64,
    worst_share_percent: u64,
}

/// As in the configuration.
#[derive(Deserialize)]
#[serde(default)]
struct Config {
    margin_percent: Option<u32>,
    floor_usd: Usd,
    ceiling_usd: Usd,
    worst_share_percent: u32,
}

/// Dollars as text, read into nano-dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usd(pub u64);

/// The bids that keep to the terms, nano-dollars: `least` is not above `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The least of them.
    pub least: u64,
    /// The highest of them.
    pub most: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            margin_percent: None,
            floor_usd: Usd::CENT,
            ceiling_usd: Usd(AMOUNT_MAX),
            worst_share_percent: 10,
        }
    }
}

impl Terms {
    /// Reads the members that are the terms', and no others.
    ///
    /// # Errors
    ///
    /// [`PluginError::InvalidConfig`], naming the member.
    pub fn read(config_json: &str, margin_percent: u32) -> Result<Terms, PluginError> {
        let config: Config = serde_json::from_str(config_json)
            .map_err(|error| PluginError::InvalidConfig(error.to_string()))?;
        if config.floor_usd.0 > config.ceiling_usd.0 {
            return Err(PluginError::InvalidConfig("floor_usd is above ceiling_usd".into()));
        }
        Ok(Terms {
            margin_percent: config.margin_percent.unwrap_or(margin_percent).into(),
            floor: config.floor_usd.0,
            ceiling: config.ceiling_usd.0,
            worst_share_percent: config.worst_share_percent.into(),
        })
    }

    /// Where a bid may lie for a job that is expected to cost so much: not below the cost and its
    /// margin, both floors, and the share of the worst cost; not above credit and both ceilings.
    ///
    /// # Errors
    ///
    /// The [`code`] of why there is no such bid.
    pub fn room(&self, job: &Job, cost: u64, worst: u64) -> Result<Room, u16> {
        let hundredths = self.margin_percent.saturating_add(100);
        let wanted = per_hundred(cost, hundredths).max(self.floor).max(job.floor);
        if wanted > job.credit {
            return Err(code::CREDIT);
        }
        let most = most(job).min(self.ceiling);
        if wanted > most {
            return Err(code::CEILING);
        }
        let borne = per_hundred(worst, self.worst_share_percent);
        if borne > most {
            return Err(code::WORST);
        }
        Ok(Room { least: wanted.max(borne), most })
    }

    /// The least bid for the job's cheapest target.
    pub fn decide(&self, job: &Job) -> Decision {
        match cheapest(job) {
            Some(target) => self.decide_for(job, target),
            None => Decision::Skip(code::NO_TARGET),
        }
    }

    /// The least bid for this target.
    pub fn decide_for(&self, job: &Job, target: &OptionCost) -> Decision {
        match self.room(job, target.expected, target.worst) {
            Ok(room) => Decision::Bid(room.least),
            Err(code) => Decision::Skip(code),
        }
    }
}

impl Usd {
    /// The least that the market takes.
    pub const CENT: Usd = Usd(10_000_000);

    /// Reads `"2"` or `"0.05"`: no sign, no exponent, at most nine decimals, at most 9 million.
    pub fn read(text: &str) -> Option<Usd> {
        let (dollars, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(dollars) || !digits(decimals) || decimals.len() > 9 {
            return None;
        }
        let whole: u64 = dollars.parse().ok()?;
        let nanos: u64 = format!("{decimals:0<9}").parse().ok()?;
        let total = whole.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        (total <= AMOUNT_MAX).then_some(Usd(total))
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Usd, D::Error> {
        struct Dollars;

        impl de::Visitor<'_> for Dollars {
            type Value = Usd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("dollars in quotes, such as \"0.05\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Usd, E> {
                Usd::read(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_str(Dollars)
    }
}

#[cfg(test)]
mod tests {
    use sluice_plugin::bid::sample_job;

    use super::*;

    fn terms(config: &str) -> Terms {
        Terms::read(config, 30).unwrap()
    }

    #[test]
    fn dollars_are_read_exactly_or_not_at_all() {
        assert_eq!(Usd::read("0.01"), Some(Usd::CENT));
        assert_eq!(Usd::read("2"), Some(Usd(2_000_000_000)));
        assert_eq!(Usd::read("0.000000001"), Some(Usd(1)));
        for text in ["", ".5", "1.", "-1", "1e3", "0.0000000001", "9007200", "18446744074"] {
            assert_eq!(Usd::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_config_that_makes_no_sense_is_named() {
        for (config, named) in [
            (r#"{"floor_usd": 0.01}"#, "dollars in quotes"),
            (r#"{"floor_usd": "2", "ceiling_usd": "1"}"#, "ceiling_usd"),
            (r#"{"margin_percent": -1}"#, "-1"),
        ] {
            let Err(PluginError::InvalidConfig(text)) = Terms::read(config, 0) else { panic!("{config}") };
            assert!(text.contains(named), "{text}");
        }
    }

    /// Every bound alone decides, and its code says which it was.
    #[test]
    fn each_bound_has_its_code() {
        let free = terms(r#"{"margin_percent": 10, "floor_usd": "0", "worst_share_percent": 0}"#);
        let job = |credit, floor, ceiling| {
            let mut job = sample_job(0, credit, 1_000);
            (job.floor, job.ceiling) = (floor, ceiling);
            job
        };
        assert_eq!(free.decide(&job(1_100, 0, 1_100)), Decision::Bid(1_100));
        assert_eq!(free.decide(&job(1_099, 0, 1_100)), Decision::Skip(code::CREDIT));
        assert_eq!(free.decide(&job(1_100, 0, 1_099)), Decision::Skip(code::CEILING));
        assert_eq!(free.decide(&job(5_000, 4_000, 5_000)), Decision::Bid(4_000));
        assert_eq!(free.decide(&job(5_000, 5_001, 6_000)), Decision::Skip(code::CREDIT));
        let own = terms(r#"{"floor_usd": "0.000003", "ceiling_usd": "0.000004", "worst_share_percent": 0}"#);
        assert_eq!(own.decide(&job(5_000, 0, 5_000)), Decision::Bid(3_000));
        assert_eq!(own.decide(&job(5_000, 4_001, 5_000)), Decision::Skip(code::CEILING));
        let safe = terms(r#"{"floor_usd": "0", "worst_share_percent": 100}"#);
        assert_eq!(safe.decide(&job(2_000, 0, 2_000)), Decision::Bid(2_000), "the sample's worst is double");
        assert_eq!(safe.decide(&job(1_999, 0, 2_000)), Decision::Skip(code::WORST));
        let mut nobody = job(5_000, 0, 5_000);
        nobody.targets.clear();
        assert_eq!(safe.decide(&nobody), Decision::Skip(code::NO_TARGET));
    }

    /// Over a grid of amounts up to the largest: a bid keeps to every bound, or there is none.
    #[test]
    fn no_bid_breaks_a_bound() {
        let amounts = [0, 1, 999, 10_000_000, 123_456_789, AMOUNT_MAX - 1, AMOUNT_MAX];
        let configs = [
            "{}",
            r#"{"margin_percent": 0, "floor_usd": "0", "worst_share_percent": 0}"#,
            r#"{"margin_percent": 4294967295, "worst_share_percent": 4294967295, "floor_usd": "0"}"#,
            r#"{"margin_percent": 7, "floor_usd": "0.1", "ceiling_usd": "0.12", "worst_share_percent": 33}"#,
        ];
        let mut bids = 0;
        for config in configs {
            let terms = terms(config);
            for place in 0..7_usize.pow(5) {
                let amount = |power: u32| amounts[place / 7_usize.pow(power) % 7];
                let mut job = sample_job(0, amount(0), amount(1));
                (job.floor, job.ceiling, job.targets[0].worst) = (amount(2), amount(3), amount(4));
                let Decision::Bid(bid) = terms.decide(&job) else { continue };
                bids += 1;
                let exact = u128::from(amount(1)) * u128::from(100 + terms.margin_percent);
                assert!(u128::from(bid) * 100 >= exact, "{config} {job:?}: {bid} is below the cost");
                let exact = u128::from(amount(4)) * u128::from(terms.worst_share_percent);
                assert!(u128::from(bid) * 100 >= exact, "{config} {job:?}: {bid} does not bear the worst");
                assert!(bid >= job.floor && bid >= terms.floor, "{config} {job:?}: {bid}");
                assert!(bid <= most(&job) && bid <= terms.ceiling, "{config} {job:?}: {bid}");
            }
        }
        assert!(bids > 1_000, "the control: {bids} bids");
    }
}
