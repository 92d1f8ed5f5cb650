//! The same for programs: amounts are texts in US dollars.

use serde_json::{Map, Value, json};
use sluice_core::money::NanoUsd;
use sluice_core::price::{PerMillion, Price, Rates};

use super::explain::Example;
use super::{Offer, Served, Terms, at};
use crate::config::{Config, Origin};

pub(super) fn all(config: &Config, all: &[Served<'_>]) -> Value {
    let absent: Vec<Value> =
        config.absent.iter().map(|absent| json!({"name": absent.models, "key": absent.key})).collect();
    json!({"models": all.iter().map(served).collect::<Vec<_>>(), "absent": absent})
}

pub(super) fn served(served: &Served<'_>) -> Value {
    json!({
        "name": served.name,
        "entry": served.entry.name.as_str(),
        "policy": served.entry.policy.value,
        "policy_config": served.entry.policy_config.value,
        "targets": served.offers.iter().map(offer).collect::<Vec<_>>(),
    })
}

fn offer(offer: &Offer<'_>) -> Value {
    let (said_by, source, date) = match &offer.terms {
        Terms::Own(_, place) => (Some("target"), Some(at(place)), None),
        Terms::Tariff(tariff) => match &tariff.origin {
            Origin::Config(place) => (Some("prices"), Some(at(place)), None),
            Origin::List(listed) => (Some("list"), Some(listed.source.clone()), Some(&listed.date)),
        },
        Terms::ByName | Terms::Nothing | Terms::Unpriced => (None, None, None),
    };
    json!({
        "upstream": offer.upstream.name,
        "adapter": offer.upstream.adapter.value,
        "key_set": !offer.upstream.secrets.is_empty(),
        "model": offer.model,
        "context": offer.bounds.context,
        "max_output": offer.bounds.max_output,
        "max_part": offer.bounds.part,
        "price": offer.price().map(price),
        "price_by": said_by,
        "price_source": source,
        "price_date": date,
        "example": offer.price().map(|price| example(price, offer)),
    })
}

fn price(price: &Price) -> Value {
    let sheet = price.sheet();
    let mut all = rates(&sheet.rates);
    let tiers = sheet.tiers.iter().map(|tier| {
        let mut rates = rates(&tier.rates);
        rates.insert("above_input".into(), tier.above_input.into());
        Value::from(rates)
    });
    all.insert("tiers".into(), tiers.collect());
    all.insert("request".into(), sheet.request.to_string().into());
    all.insert("call".into(), sheet.call.map(|call| call.to_string()).into());
    all.insert("second".into(), sheet.second.map(|second| second.to_string()).into());
    all.into()
}

fn rates(rates: &Rates) -> Map<String, Value> {
    let classes = [
        ("input", Some(rates.input)),
        ("cached_input", rates.cached_input),
        ("cache_write", rates.cache_write),
        ("output", Some(rates.output)),
        ("reasoning", rates.reasoning),
    ];
    let text = |rate: Option<PerMillion>| rate.map(|rate| rate.0.to_string());
    classes.into_iter().map(|(class, rate)| (class.to_owned(), text(rate).into())).collect()
}

fn example(price: &Price, offer: &Offer<'_>) -> Value {
    let Example { input, output, cost, worst } = Example::of(price, offer);
    let text = |amount: Option<NanoUsd>| amount.map(|amount| amount.to_string());
    json!({"input": input, "output": output, "cost_usd": text(cost), "worst_usd": text(worst)})
}
