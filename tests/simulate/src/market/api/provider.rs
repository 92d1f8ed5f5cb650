//! A provider's side: what is open, what it proposed, and a proposal.

use http::{StatusCode, Uri};
use serde_json::json;

use super::view::{InstanceView, ProposalView};
use super::{Asked, Reply};
use crate::market::detail::Refused;
use crate::market::instance::{Bidder, Proposal};
use crate::market::state::{Offer, State};

pub(super) fn instances(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, wanted) = (asked.market(), asked.status_wanted()?);
    market.read(|state| {
        let fits = state
            .instances
            .iter()
            .filter(|instance| wanted.is_none_or(|code| instance.status.code() == code));
        Reply::ok(&fits.map(|instance| InstanceView::of(instance, market)).collect::<Vec<_>>())
    })
}

pub(super) fn instance(asked: Asked<'_>) -> Result<Reply, Refused> {
    let market = asked.market();
    market.read(|state| Reply::ok(&InstanceView::of(state.find(asked.id)?.1, market)))
}

/// The caller's own.
pub(super) fn proposals(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, account) = (asked.market(), asked.account()?);
    market.read(|state| {
        let own = state.instances.iter().flat_map(|instance| {
            let bids = instance.bids_of(account);
            bids.map(move |proposal| {
                ProposalView::of(proposal, instance, market, |bidder| provider_id(state, bidder))
            })
        });
        Reply::ok(&own.collect::<Vec<_>>())
    })
}

pub(super) fn propose(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let amount = fields.amount("max_bid");
    let endpoint = fields.name_if_any("endpoint");
    let endpoint_key = fields.name_if_any("endpoint_api_key");
    if let Some(url) = endpoint.as_deref().filter(|url| !is_url(url)) {
        fields.wrong::<()>("url_parsing", "endpoint", "Input should be a valid URL", json!(url));
    }
    fields.done()?;
    let market = asked.market();
    market.change(|state| {
        let offer = Offer { amount, endpoint, endpoint_key };
        let proposal: Proposal = state.propose(account, asked.id, offer, &market.script, market.now())?;
        let (_, instance) = state.find(asked.id)?;
        let view = ProposalView::of(&proposal, instance, market, |bidder| provider_id(state, bidder));
        Reply::json(StatusCode::CREATED, &view)
    })
}

/// The id of who bids: rivals have one too.
pub(super) fn provider_id(state: &State, bidder: Bidder) -> String {
    match bidder {
        Bidder::Account(index) => {
            state.accounts.get(index).map(|account| account.id.clone()).unwrap_or_default()
        }
        Bidder::Rival(index) => state.accounts.rival_id(index),
    }
}

fn is_url(text: &str) -> bool {
    let uri: Option<Uri> = text.parse().ok();
    uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}
