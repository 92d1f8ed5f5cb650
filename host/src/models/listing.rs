//! All models as a table: a line for each target of each name.

use std::io::{self, Write};

use sluice_core::price::{PerMillion, Price};

use super::{Offer, Served, grouped};
use crate::commands::table;
use crate::config::Config;

const HEADS: [&str; 10] = [
    "model",
    "upstream",
    "its model",
    "key",
    "input",
    "output",
    "other prices",
    "context",
    "max output",
    "price by",
];

pub(super) fn write(config: &Config, all: &[Served<'_>], out: &mut impl Write) -> io::Result<()> {
    let mut rows = vec![HEADS.map(String::from).to_vec()];
    for served in all {
        let is_of_pattern = served.name != served.entry.name.as_str();
        let indent = if is_of_pattern { "  " } else { "" };
        for (index, offer) in served.offers.iter().enumerate() {
            let name = if index == 0 { format!("{indent}{}", served.name) } else { String::new() };
            rows.push(row(name, offer));
        }
    }
    writeln!(out, "US dollars for a million tokens; `sluice models NAME` has all of one model.\n")?;
    table(&mut *out, &rows)?;
    if !config.absent.is_empty() {
        let absent: Vec<Vec<String>> =
            config.absent.iter().map(|absent| vec![absent.models.clone(), absent.key.clone()]).collect();
        writeln!(out, "\nThere with a key, in the environment or in .env:\n")?;
        table(out, &absent)?;
    }
    Ok(())
}

fn row(name: String, offer: &Offer<'_>) -> Vec<String> {
    let rates = offer.price().map(|price| price.sheet().rates);
    let dollars = |rate: Option<PerMillion>| rate.map_or_else(|| "-".into(), |rate| rate.0.to_string());
    let tokens = |count: Option<u64>| count.map_or_else(|| "-".into(), grouped);
    vec![
        name,
        offer.upstream.name.clone(),
        offer.model.clone().unwrap_or_else(|| "*".into()),
        if offer.upstream.secrets.is_empty() { "none" } else { "set" }.into(),
        dollars(rates.map(|rates| rates.input)),
        dollars(rates.map(|rates| rates.output)),
        offer.price().map(others).unwrap_or_default(),
        tokens(offer.bounds.context),
        tokens(offer.bounds.max_output),
        offer.said_by(),
    ]
}

/// What is priced apart from input and output.
fn others(price: &Price) -> String {
    let sheet = price.sheet();
    let classes = [
        ("cached", sheet.rates.cached_input),
        ("cache write", sheet.rates.cache_write),
        ("reasoning", sheet.rates.reasoning),
    ];
    let classes = classes.into_iter().filter_map(|(class, rate)| Some((class, rate?.0)));
    let request = (sheet.request.nanos() > 0).then_some(("request", sheet.request));
    let call = sheet.call.map(|call| ("tool call", call));
    let second = sheet.second.map(|second| ("second", second));
    let mut others: Vec<String> = classes
        .chain(request)
        .chain(call)
        .chain(second)
        .map(|(class, amount)| format!("{class} {amount}"))
        .collect();
    match sheet.tiers.len() {
        0 => {}
        1 => others.push("1 tier".into()),
        count => others.push(format!("{count} tiers")),
    }
    others.join(", ")
}
