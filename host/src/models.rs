//! `sluice models`: what clients may ask for, who serves it, what that costs, and who says so.

mod explain;
mod json;
mod listing;

use std::collections::BTreeSet;
use std::io::{self, Write};

use sluice_core::bound::Bounds;
use sluice_core::pattern;
use sluice_core::price::Price;

use crate::cli::ModelsArgs;
use crate::commands::CommandError;
use crate::config::{Config, Model, Origin, Place, Target, TargetModel, Tariff, Upstream};

/// How far a name may be from what was asked for to be taken for it (Jaro-Winkler).
const NEAR_MIN: f64 = 0.75;

/// Names that are shown instead of one that is not there.
const NEAR_MAX: usize = 3;

/// A name or a pattern that clients may ask by.
struct Served<'c> {
    name: String,
    entry: &'c Model,
    /// In the order of the configuration.
    offers: Vec<Offer<'c>>,
}

/// One target, for one name.
struct Offer<'c> {
    upstream: &'c Upstream,
    /// The upstream's name for the model; none where it depends on what is asked for.
    model: Option<String>,
    terms: Terms<'c>,
    bounds: Bounds,
}

/// What a target costs, and who says so.
enum Terms<'c> {
    /// The target itself; the place is the target's.
    Own(&'c Price, &'c Place),
    /// `[[prices]]` or the price list.
    Tariff(&'c Tariff),
    /// It depends on what is asked for.
    ByName,
    /// It answers by itself: nothing is sent, and no budget asks what that costs.
    Nothing,
    /// Nobody: under a budget it is refused.
    Unpriced,
}

/// Prints all models, or explains one.
///
/// # Errors
///
/// [`CommandError`] where no model serves the name, with the nearest that there are.
pub(crate) fn models(config: &Config, args: &ModelsArgs) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let Some(name) = &args.name else {
        let all = all(config);
        match args.json {
            true => writeln!(out, "{:#}", json::all(config, &all))?,
            false => listing::write(config, &all, &mut out)?,
        }
        return Ok(());
    };
    let served = find(config, name).ok_or_else(|| unknown(config, name))?;
    match args.json {
        true => writeln!(out, "{:#}", json::served(&served))?,
        false => explain::write(config, &served, &mut out)?,
    }
    Ok(())
}

/// All entries in their order, each pattern with the names of it that have a price.
fn all(config: &Config) -> Vec<Served<'_>> {
    let with_names = |entry| {
        let names = priced_names(config, entry).into_iter();
        std::iter::once(as_written(config, entry)).chain(names.map(move |name| asked(config, entry, name)))
    };
    config.models.iter().flat_map(with_names).collect()
}

/// The entry that serves a name, or that is written so.
fn find<'c>(config: &'c Config, name: &str) -> Option<Served<'c>> {
    let written = config.models.iter().find(|entry| entry.name.as_str() == name);
    let by_name = || best(config, name).map(|entry| asked(config, entry, name.to_owned()));
    written.map(|entry| as_written(config, entry)).or_else(by_name)
}

fn unknown(config: &Config, name: &str) -> CommandError {
    let all = all(config);
    let near = nearest(all.iter().map(|served| served.name.as_str()), name);
    let names = match near.is_empty() {
        false => format!("did you mean {}?", near.join(", ")),
        true => {
            let entries: Vec<&str> = config.models.iter().map(|entry| entry.name.as_str()).collect();
            format!("there are: {}", if entries.is_empty() { "none".into() } else { entries.join(", ") })
        }
    };
    CommandError::Refused(format!("no model {name:?}; {names}"))
}

/// The names that are most like this one, the likest first.
fn nearest<'n>(names: impl Iterator<Item = &'n str>, name: &str) -> Vec<&'n str> {
    let near = names.map(|known| (strsim::jaro_winkler(known, name), known));
    let mut near: Vec<(f64, &str)> = near.filter(|(score, _)| *score >= NEAR_MIN).collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.into_iter().take(NEAR_MAX).map(|(_, known)| known).collect()
}

fn best<'c>(config: &'c Config, name: &str) -> Option<&'c Model> {
    pattern::best(config.models.iter().map(|entry| (&entry.name, entry)), name)
}

/// Names for which this pattern is asked and one of its upstreams has a price; none where it is a name
/// itself. Other names for the same model are left out.
fn priced_names(config: &Config, entry: &Model) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if !entry.name.is_glob() {
        return names;
    }
    for target in &entry.targets {
        for (model, tariff) in upstream(config, target).iter().flat_map(|upstream| upstream.tariffs.iter()) {
            let name = match &target.model {
                TargetModel::Named(_) => None,
                TargetModel::AsAsked => Some(model.to_owned()),
                TargetModel::Star => entry.name.with_star(model),
            };
            let is_alias = matches!(&tariff.origin, Origin::List(listed) if listed.name != model);
            let is_ours = |name: &String| best(config, name).is_some_and(|best| std::ptr::eq(best, entry));
            names.extend(name.filter(|name| !is_alias && is_ours(name)));
        }
    }
    names
}

fn as_written<'c>(config: &'c Config, entry: &'c Model) -> Served<'c> {
    let name = entry.name.as_str();
    if !entry.name.is_glob() {
        return asked(config, entry, name.to_owned());
    }
    let offer = |target: &'c Target| {
        let model = match &target.model {
            TargetModel::Named(model) => Some(model.clone()),
            TargetModel::AsAsked | TargetModel::Star => None,
        };
        offer(config, target, model)
    };
    Served { name: name.to_owned(), entry, offers: entry.targets.iter().filter_map(offer).collect() }
}

fn asked<'c>(config: &'c Config, entry: &'c Model, name: String) -> Served<'c> {
    let offer = |target: &'c Target| {
        let model = target.model.name(&entry.name, &name).to_owned();
        offer(config, target, Some(model))
    };
    let offers = entry.targets.iter().filter_map(offer).collect();
    Served { name, entry, offers }
}

fn offer<'c>(config: &'c Config, target: &'c Target, model: Option<String>) -> Option<Offer<'c>> {
    let upstream = upstream(config, target)?;
    let tariff = model.as_ref().and_then(|model| upstream.tariffs.get(model));
    let terms = match (&target.price, tariff, &model) {
        (Some(price), _, _) => Terms::Own(price, &target.upstream.place),
        (None, Some(tariff), _) => Terms::Tariff(tariff),
        (None, None, _) if upstream.base_url.is_none() => Terms::Nothing,
        (None, None, None) => Terms::ByName,
        (None, None, Some(_)) => Terms::Unpriced,
    };
    let bounds = model.as_ref().map_or(target.bounds, |model| upstream.tariffs.bounds(target.bounds, model));
    Some(Offer { upstream, model, terms, bounds })
}

/// It is there: names that nobody has were refused with the configuration.
fn upstream<'c>(config: &'c Config, target: &Target) -> Option<&'c Upstream> {
    config.upstreams.iter().find(|upstream| upstream.name == target.upstream.value)
}

impl Offer<'_> {
    fn price(&self) -> Option<&Price> {
        match &self.terms {
            Terms::Own(price, _) => Some(price),
            Terms::Tariff(tariff) => Some(&tariff.price),
            Terms::ByName | Terms::Nothing | Terms::Unpriced => None,
        }
    }

    /// In one line.
    fn said_by(&self) -> String {
        match &self.terms {
            Terms::Own(_, place) => format!("its target, {}", at(place)),
            Terms::Tariff(tariff) => match &tariff.origin {
                Origin::Config(place) => format!("[[prices]], {}", at(place)),
                Origin::List(listed) => format!("the list, {}, {}", listed.date, listed.source),
            },
            Terms::ByName => "by the name that is asked for".into(),
            Terms::Nothing => "it answers by itself".into(),
            Terms::Unpriced => "unpriced: refused under a budget".into(),
        }
    }
}

/// File and line.
fn at(place: &Place) -> String {
    format!("{}:{}", place.file, place.line)
}

/// A count with commas: `1,050,000`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        let table = [(0, "0"), (999, "999"), (1000, "1,000"), (65_536, "65,536"), (1_050_000, "1,050,000")];
        for (count, text) in table {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn the_nearest_names_are_those_that_are_like_it() {
        let names = ["gpt-4o", "gpt-4o-mini", "claude", "echo"];
        assert_eq!(nearest(names.into_iter(), "gtp-4o")[0], "gpt-4o");
        assert_eq!(nearest(names.into_iter(), "zzz"), [""; 0]);
    }
}
