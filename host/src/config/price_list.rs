//! The price list that is embedded in the gateway: what the models of the catalogue's vendors cost, and
//! how long their calls can be.

use std::sync::Arc;

use serde::Deserialize;
use sluice_core::bound::Bounds;
use sluice_core::money::{NanoUsd, NotAnAmount};
use sluice_core::price::{PerMillion, Price, Rates, Sheet, Tier};

use super::catalogue::place;
use super::{ConfigError, Origin, Tariff};

/// Data, not code; its head says what the members mean.
const PRICES: &str = include_str!("../../../plugins/prices.toml");

/// Where a row of the list comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The model's name in the list; a tariff may go by one of its aliases.
    pub(crate) name: String,
    /// The vendor's page.
    pub(crate) source: String,
    /// The day on which it was looked at, `2026-11-19`.
    pub(crate) date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    model: Vec<Row>,
}

/// One model of one vendor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) vendor: String,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    context: u64,
    max_output: u64,
    input: Dollars,
    cached_input: Option<Dollars>,
    cache_write: Option<Dollars>,
    output: Dollars,
    reasoning: Option<Dollars>,
    request: Option<Dollars>,
    call: Option<Dollars>,
    #[serde(default)]
    tiers: Vec<TierRow>,
    /// Not a bound of [`Bounds::part`]: that is for files and sounds too.
    #[serde(rename = "image")]
    _image: Option<u64>,
    source: String,
    date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierRow {
    above_input: u64,
    input: Dollars,
    cached_input: Option<Dollars>,
    cache_write: Option<Dollars>,
    output: Dollars,
    reasoning: Option<Dollars>,
}

/// An amount as it is written: `"0.05"`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Dollars(NanoUsd);

/// The whole list, in its order.
///
/// # Errors
///
/// [`ConfigError`] where it cannot be read; a test keeps it from being shipped so.
pub(super) fn rows() -> Result<Vec<Row>, ConfigError> {
    let list: List = toml::from_str(PRICES).map_err(|error| {
        let wanted = format!("the price list cannot be read: {}", error.message());
        ConfigError::Problems(vec![place("prices.toml", "").problem(wanted)])
    })?;
    Ok(list.model)
}

impl Row {
    /// The row's tariff, under each of the model's names.
    pub(super) fn tariffs(&self) -> impl Iterator<Item = (String, Tariff)> + '_ {
        let listed = Listed { name: self.name.clone(), source: self.source.clone(), date: self.date.clone() };
        let tariff =
            Tariff { price: self.price(), bounds: self.bounds(), origin: Origin::List(Arc::new(listed)) };
        self.names().map(move |name| (name.to_owned(), tariff.clone()))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    fn price(&self) -> Price {
        let rates = rates(self.input, self.cached_input, self.cache_write, self.output, self.reasoning);
        let tier = |tier: &TierRow| Tier { above_input: tier.above_input, rates: rates_of(tier) };
        Price::new(Sheet {
            rates,
            tiers: self.tiers.iter().map(tier).collect(),
            request: self.request.map_or(NanoUsd::ZERO, |request| request.0),
            call: self.call.map(|call| call.0),
            second: None,
        })
    }

    fn bounds(&self) -> Bounds {
        Bounds { context: Some(self.context), max_output: Some(self.max_output), part: None }
    }
}

impl TryFrom<String> for Dollars {
    type Error = NotAnAmount;

    fn try_from(text: String) -> Result<Dollars, NotAnAmount> {
        text.parse().map(Dollars)
    }
}

fn rates_of(tier: &TierRow) -> Rates {
    rates(tier.input, tier.cached_input, tier.cache_write, tier.output, tier.reasoning)
}

fn rates(
    input: Dollars,
    cached_input: Option<Dollars>,
    cache_write: Option<Dollars>,
    output: Dollars,
    reasoning: Option<Dollars>,
) -> Rates {
    let per_million = |dollars: Dollars| PerMillion(dollars.0);
    Rates {
        input: per_million(input),
        cached_input: cached_input.map(per_million),
        cache_write: cache_write.map(per_million),
        output: per_million(output),
        reasoning: reasoning.map(per_million),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::catalogue;

    /// Dearer than this for a million tokens is a slip of the pen.
    const DEAREST: NanoUsd = NanoUsd::from_nanos(2_000_000_000_000);

    fn is_a_day(text: &str) -> bool {
        let digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        matches!(text.split('-').collect::<Vec<_>>()[..], [year, month, day]
            if digits(year, 4) && digits(month, 2) && digits(day, 2))
    }

    #[test]
    fn every_row_of_the_shipped_list_is_sound() {
        let vendors: BTreeSet<String> =
            catalogue::addresses().unwrap().into_iter().map(|(name, _)| name).collect();
        let rows = rows().unwrap();
        assert!(rows.len() >= 100, "{} rows", rows.len());
        let mut seen = BTreeSet::new();
        for row in &rows {
            let which = format!("{}/{}", row.vendor, row.name);
            assert!(vendors.contains(&row.vendor), "{which}: no such vendor");
            for name in row.names() {
                assert!(!name.is_empty() && !name.contains('*') && name.trim() == name, "{which}: {name:?}");
                assert!(seen.insert((row.vendor.clone(), name.to_owned())), "{which}: {name} is there twice");
            }
            assert!(row.context > 0 && row.max_output <= row.context, "{which}: its bounds");
            assert!(row.max_output > 0 || row.output.0 == NanoUsd::ZERO, "{which}: no output has no price");
            let above: Vec<u64> = row.tiers.iter().map(|tier| tier.above_input).collect();
            assert!(above.is_sorted_by(|lower, higher| lower < higher), "{which}: tiers do not rise");
            assert!(above.iter().all(|above| (1..row.context).contains(above)), "{which}: nobody gets there");
            assert!(row.source.starts_with("https://") && is_a_day(&row.date), "{which}: its source");
            let price = row.price();
            let worst = price.worst(1_000_000, 1_000_000).unwrap();
            assert!(NanoUsd::ZERO < worst && worst < DEAREST, "{which}: {worst}");
            // As in reality: a cache that is dearer to read than to do without is a slip of the pen.
            assert!(row.cached_input.is_none_or(|cached| cached.0 <= row.input.0), "{which}: cached input");
        }
    }

    #[test]
    fn a_row_is_read_to_its_last_member() {
        let row = r#"
            vendor = "v"
            name = "m"
            aliases = ["m-1"]
            context = 1000
            max_output = 100
            input = "1"
            cached_input = "2"
            cache_write = "3"
            output = "4"
            reasoning = "5"
            request = "6"
            call = "7"
            tiers = [{ above_input = 500, input = "8", cache_write = "9", output = "10" }]
            image = 1700
            source = "https://v.example"
            date = "2026-01-31"
        "#;
        let dollars = |dollars: u64| NanoUsd::from_nanos(dollars * 1_000_000_000);
        let rate = |amount| PerMillion(dollars(amount));
        let row: Row = toml::from_str(row).unwrap();
        let tariffs: Vec<(String, Tariff)> = row.tariffs().collect();
        assert_eq!(tariffs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["m", "m-1"]);
        let Tariff { price, bounds, origin } = &tariffs[1].1;
        let rates = Rates {
            input: rate(1),
            cached_input: Some(rate(2)),
            cache_write: Some(rate(3)),
            output: rate(4),
            reasoning: Some(rate(5)),
        };
        let long = Rates { input: rate(8), cache_write: Some(rate(9)), output: rate(10), ..Rates::default() };
        let sheet = Sheet {
            rates,
            tiers: vec![Tier { above_input: 500, rates: long }],
            request: dollars(6),
            call: Some(dollars(7)),
            second: None,
        };
        assert_eq!(*price.sheet(), sheet);
        assert_eq!(*bounds, Bounds { context: Some(1000), max_output: Some(100), part: None });
        let listed =
            Listed { name: "m".into(), source: "https://v.example".into(), date: "2026-01-31".into() };
        assert_eq!(*origin, Origin::List(Arc::new(listed)));
        assert!(toml::from_str::<Row>("vendor = \"v\"\nnmae = \"m\"").is_err());
    }
}
