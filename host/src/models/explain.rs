//! One model, with all that is known of it.

use std::io::{self, Write};

use sluice_core::money::NanoUsd;
use sluice_core::price::{Price, Rates, Usage};

use super::{Offer, Served, Terms, at, grouped, nearest};
use crate::commands::table;
use crate::config::{Config, Origin, Unpriced};

/// The call that serves as an example.
pub(super) const EXAMPLE: Usage =
    Usage { input: 1000, output: 500, cached_input: 0, cache_write: 0, reasoning: 0, calls: 0, millis: 0 };

/// Tokens of each class, as the heads of a table.
const CLASSES: [&str; 6] =
    ["USD per million tokens", "input", "cached input", "cache write", "output", "reasoning"];

pub(super) fn write(config: &Config, served: &Served<'_>, out: &mut impl Write) -> io::Result<()> {
    let entry = served.entry;
    let policy = match entry.policy_config.value.as_object().is_some_and(serde_json::Map::is_empty) {
        true => entry.policy.value.clone(),
        false => format!("{} {}", entry.policy.value, entry.policy_config.value),
    };
    let mut lines = vec![
        ("model", served.name.clone()),
        ("entry", format!("{:?}, {}", entry.name.as_str(), place(served))),
    ];
    let others = others(config, served);
    if !others.is_empty() {
        lines.push((
            "",
            format!(
                "it also matches {}: a name goes before a pattern, the longest pattern before others",
                others.join(", ")
            ),
        ));
    }
    lines.push(("policy", policy));
    lines.push(("targets", format!("{}, as configured; the policy orders them", served.offers.len())));
    pairs(&lines, "", out)?;
    for (number, offer) in (1..).zip(&served.offers) {
        let model = offer.model.as_ref().map_or_else(|| "*".into(), |model| format!("{model:?}"));
        writeln!(out, "\n{number}. {}, its model {model}", offer.upstream.name)?;
        write_offer(config, offer, out)?;
    }
    Ok(())
}

fn write_offer(config: &Config, offer: &Offer<'_>, out: &mut impl Write) -> io::Result<()> {
    let key = if offer.upstream.secrets.is_empty() { "none" } else { "set" };
    let tokens = |count: Option<u64>| {
        count.map_or_else(|| "not known".into(), |count| format!("{} tokens", grouped(count)))
    };
    let max_output = match offer.bounds.max_output {
        Some(0) => "it has no output".into(),
        count => tokens(count),
    };
    let mut lines = vec![
        ("adapter", offer.upstream.adapter.value.clone()),
        ("key", key.into()),
        ("context", tokens(offer.bounds.context)),
        ("max output", max_output),
        ("price by", price_by(config, offer)),
    ];
    if let Terms::Tariff(tariff) = &offer.terms
        && let Origin::List(listed) = &tariff.origin
        && offer.model.as_ref().is_some_and(|model| *model != listed.name)
    {
        lines.push(("", format!("there it is {:?}", listed.name)));
    }
    pairs(&lines, "   ", out)?;
    let Some(price) = offer.price() else { return Ok(()) };
    writeln!(out)?;
    write_price(price, out)?;
    pairs(&costs(price, offer), "   ", out)
}

/// Rates by tier, and what a call costs besides its tokens.
fn write_price(price: &Price, out: &mut impl Write) -> io::Result<()> {
    let sheet = price.sheet();
    let row = |name: String, rates: &Rates| {
        let rate = |rate: Option<_>, other| rate.unwrap_or(other);
        let rates = [
            rates.input,
            rate(rates.cached_input, rates.input),
            rate(rates.cache_write, rates.input),
            rates.output,
            rate(rates.reasoning, rates.output),
        ];
        std::iter::once(name).chain(rates.iter().map(|rate| rate.0.to_string())).collect::<Vec<String>>()
    };
    let mut rows = vec![CLASSES.map(String::from).to_vec(), row("any call".into(), &sheet.rates)];
    if let (Some(first), Some(any)) = (sheet.tiers.first(), rows.get_mut(1)) {
        any[0] = format!("up to {} of input", grouped(first.above_input));
    }
    rows.extend(
        sheet.tiers.iter().map(|tier| row(format!("above {}", grouped(tier.above_input)), &tier.rates)),
    );
    indented(&rows, "   ", out)?;
    writeln!(out)
}

fn costs(price: &Price, offer: &Offer<'_>) -> Vec<(&'static str, String)> {
    let sheet = price.sheet();
    let mut lines = Vec::new();
    if sheet.request.nanos() > 0 {
        lines.push(("each call", format!("{} USD besides", sheet.request)));
    }
    let tools = |call| format!("{call} USD for each that the vendor charges for");
    lines.push((
        "tool calls",
        sheet.call.map_or_else(|| "those that the vendor charges for have no price".into(), tools),
    ));
    if let Some(second) = sheet.second {
        lines.push(("time", format!("{second} USD for each second of the model's")));
    }
    let usd = |amount: Option<NanoUsd>| {
        amount.map_or_else(|| "beyond all measure".into(), |amount| format!("{amount} USD"))
    };
    let Example { input, output, cost, worst } = Example::of(price, offer);
    let (cost, worst) = (usd(cost), usd(worst));
    lines.push((
        "example",
        format!("{} tokens of input and {output} of output: {cost}, at worst {worst}", grouped(input)),
    ));
    if let (Some(context), Some(max_output)) = (offer.bounds.context, offer.bounds.max_output) {
        let worst = usd(price.worst(context, max_output).ok());
        lines.push(("largest call", format!("all of the context and of the output: at worst {worst}")));
    }
    lines
}

/// What a small call costs.
pub(super) struct Example {
    pub(super) input: u64,
    pub(super) output: u64,
    /// None where it does not fit.
    pub(super) cost: Option<NanoUsd>,
    /// If all its tokens were of the dearest class.
    pub(super) worst: Option<NanoUsd>,
}

impl Example {
    pub(super) fn of(price: &Price, offer: &Offer<'_>) -> Example {
        let output = offer.bounds.max_output.map_or(EXAMPLE.output, |most| most.min(EXAMPLE.output));
        let usage = Usage { output, ..EXAMPLE };
        let (cost, worst) = (price.cost(&usage).ok(), price.worst(usage.input, output).ok());
        Example { input: usage.input, output, cost, worst }
    }
}

/// Who says what it costs; where nobody does, what follows from it and what can be done.
fn price_by(config: &Config, offer: &Offer<'_>) -> String {
    let (Terms::Unpriced, Some(model)) = (&offer.terms, &offer.model) else { return offer.said_by() };
    let strict = config.budgets.iter().find(|budget| budget.unpriced == Unpriced::Deny);
    let unpriced = match strict {
        Some(budget) => format!("unpriced: refused, since the budget {:?} wants a price", budget.rule.name),
        None => offer.said_by(),
    };
    let near = nearest(offer.upstream.tariffs.iter().map(|(name, _)| name), model);
    let near =
        if near.is_empty() { String::new() } else { format!("; there are prices of {}", near.join(", ")) };
    unpriced + &near
}

fn place(served: &Served<'_>) -> String {
    let place = &served.entry.place;
    if place.line == 0 { place.file.to_string() } else { at(place) }
}

/// Entries that match as well and come behind.
fn others<'c>(config: &'c Config, served: &Served<'_>) -> Vec<&'c str> {
    let matching = config.models.iter().filter(|entry| entry.name.matches(&served.name));
    let others = matching.filter(|entry| !std::ptr::eq(*entry, served.entry));
    others.map(|entry| entry.name.as_str()).collect()
}

fn pairs(lines: &[(&str, String)], indent: &str, out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<Vec<String>> =
        lines.iter().map(|(key, value)| vec![(*key).into(), value.clone()]).collect();
    indented(&rows, indent, out)
}

fn indented(rows: &[Vec<String>], indent: &str, out: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    table(&mut text, rows)?;
    for line in String::from_utf8_lossy(&text).lines() {
        writeln!(out, "{indent}{line}")?;
    }
    Ok(())
}
