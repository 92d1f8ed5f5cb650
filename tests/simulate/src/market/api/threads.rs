//! An instance's thread: what its requester and its winner say to each other.

use serde_json::json;

use super::view::MessageView;
use super::{Asked, Reply};
use crate::market::detail::Refused;
use crate::market::instance::{Instance, MESSAGES_MAX, Message, Status};

pub(super) fn thread(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (market, account) = (asked.market(), asked.account()?);
    market.read(|state| {
        let (_, instance) = state.find(asked.id)?;
        side(instance, account)?;
        Reply::ok(&instance.thread.iter().map(|message| MessageView::of(message, market)).collect::<Vec<_>>())
    })
}

pub(super) fn send_message(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let text = fields.text("message");
    fields.text_if_any("provider_id");
    fields.done()?;
    let market = asked.market();
    market.change(|state| {
        let (index, instance) = state.find(asked.id)?;
        let from_provider = side(instance, account)? == Side::Provider;
        if instance.status != Status::Resolved {
            return Err(Refused::bad_request("Instance has no live chat"));
        }
        let is_full = instance.thread.len() >= MESSAGES_MAX;
        if is_full || !state.keeps(text.len()) {
            return Err(Refused::bad_request("Too many messages"));
        }
        if let Some(instance) = state.instances.get_mut(index) {
            instance.thread.push(Message { from_provider, text, at: market.now() });
        }
        Reply::ok(&json!({ "status": "ok" }))
    })
}

#[derive(PartialEq, Eq)]
enum Side {
    Provider,
    Requester,
}

/// Which side of an instance an account is on.
fn side(instance: &Instance, account: usize) -> Result<Side, Refused> {
    if instance.requester == Some(account) {
        return Ok(Side::Requester);
    }
    if instance.is_won_by(account) {
        return Ok(Side::Provider);
    }
    Err(Refused::forbidden("Not a participant of this instance"))
}
