//! Prices and bounds of an upstream's model.

use sluice_core::bound::Bounds;
use sluice_core::money::NanoUsd;
use sluice_core::price::{PerMillion, Price, Rates, Sheet, Tier};

use super::reader::Table;

/// Tiers of one price at most.
const TIERS_MAX: usize = 8;

/// Tokens that any setting may name.
const TOKENS_MAX: u64 = 1_000_000_000;

pub(super) fn price(table: &Table<'_>) -> Option<Price> {
    let rates = rates(table);
    let dollars = |key| table.get(key).map(|found| amount(&found));
    let (request, call, second) = (dollars("request"), dollars("call"), dollars("second"));
    let tiers = table.get("tiers").map_or_else(Vec::new, |found| {
        let tables = found.tables();
        if tables.len() > TIERS_MAX {
            found.refuse::<()>(format!("wanted {TIERS_MAX} tiers at most"));
        }
        tables.iter().map(tier).collect()
    });
    table.finish();
    let tiers = tiers.into_iter().collect::<Option<Vec<_>>>()?;
    let given = |amount: Option<Option<NanoUsd>>| match amount {
        Some(None) => None,
        Some(amount) => Some(amount),
        None => Some(None),
    };
    let request = given(request)?.unwrap_or_default();
    Some(Price::new(Sheet { rates: rates?, tiers, request, call: given(call)?, second: given(second)? }))
}

/// What is known of a model besides its price.
pub(super) fn bounds(table: &Table<'_>) -> Bounds {
    let tokens = |key, least| table.get(key).and_then(|found| found.integer(least..=TOKENS_MAX));
    Bounds { context: tokens("context", 1), max_output: tokens("max_output", 0), part: tokens("max_part", 1) }
}

fn tier(table: &Table<'_>) -> Option<Tier> {
    let above = table.require("above_input", "tokens of input above which the tier holds");
    let above_input = above.and_then(|found| found.integer(1..=TOKENS_MAX));
    let rates = rates(table);
    table.finish();
    Some(Tier { above_input: above_input?, rates: rates? })
}

fn rates(table: &Table<'_>) -> Option<Rates> {
    let wanted = "dollars per million tokens, in quotes, such as \"0.05\"";
    let required = |key| table.require(key, wanted).and_then(|found| amount(&found)).map(PerMillion);
    let (input, output) = (required("input"), required("output"));
    let class = |key| table.get(key).map(|found| amount(&found).map(PerMillion));
    let classes = [class("cached_input"), class("cache_write"), class("reasoning")];
    if classes.iter().any(|class| matches!(class, Some(None))) {
        return None;
    }
    let [cached_input, cache_write, reasoning] = classes.map(Option::flatten);
    Some(Rates { input: input?, cached_input, cache_write, output: output?, reasoning })
}

fn amount(found: &super::reader::Found<'_>) -> Option<NanoUsd> {
    match found.text()?.parse::<NanoUsd>() {
        Ok(amount) => Some(amount),
        Err(error) => found.refuse(error.to_string()),
    }
}
