//! Accounts and money: register, log in, make keys, pay in, read the balance.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Asked, Reply};
use crate::market::account::{Account, ApiKey, Registration};
use crate::market::detail::Refused;
use crate::market::fields::Fields;
use crate::market::money::NanoUsd;

/// An account as it sees itself.
#[derive(Serialize)]
struct Profile<'a> {
    id: &'a str,
    email: &'a str,
    username: &'a str,
    fullname: &'a str,
}

#[derive(Serialize)]
struct BalanceView {
    wallet_balance: NanoUsd,
    held_balance: NanoUsd,
    currency: &'static str,
}

pub(super) fn register(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let mut fields = asked.take_fields()?;
    let wanted = Registration {
        email: fields.name("email"),
        username: fields.name("username"),
        fullname: fields.name("fullname"),
        password: fields.name("password"),
    };
    if !wanted.email.contains('@') && !wanted.email.is_empty() {
        let msg = "value is not a valid email address: An email address must have an @-sign.";
        fields.wrong::<()>("value_error", "email", msg, json!(wanted.email));
    }
    fields.done()?;
    asked.market().change(|state| {
        let index = state.accounts.register(wanted)?;
        Reply::json(StatusCode::CREATED, &state.accounts.get(index).map(Profile::of))
    })
}

pub(super) fn login(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let mut fields = asked.take_fields()?;
    let (username, password) = (fields.text("username"), fields.text("password"));
    fields.done()?;
    let market = asked.market();
    let life = Duration::from_millis(market.script.token_life_ms.into());
    let token = market.change(|state| state.accounts.login(&username, &password, market.now(), life))?;
    Reply::ok(&json!({ "access_token": token, "token_type": "bearer" }))
}

pub(super) fn me(asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    asked.market().read(|state| Reply::ok(&state.accounts.get(account).map(Profile::of)))
}

pub(super) fn create_key(asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let name = asked.wanted("name")?;
    let is_live = asked.parameter("is_live").is_none_or(|value| value.eq_ignore_ascii_case("true"));
    let key = asked.market().change(|state| state.accounts.create_key(account, name, is_live))?;
    Reply::json(
        StatusCode::CREATED,
        &json!({ "api_key": key.secret, "name": key.name, "is_live": key.is_live }),
    )
}

pub(super) fn list_keys(asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    asked.market().read(|state| {
        let keys: Vec<Value> = state.accounts.keys(account).iter().map(shown).collect();
        Reply::ok(&keys)
    })
}

pub(super) fn delete_key(asked: Asked<'_>) -> Result<Reply, Refused> {
    let (account, name) = (asked.account()?, asked.wanted("name")?);
    asked.market().change(|state| state.accounts.delete_key(account, name))?;
    Reply::ok(&json!({ "status": "ok" }))
}

pub(super) fn switch_key(asked: Asked<'_>, is_live: bool) -> Result<Reply, Refused> {
    let (account, name) = (asked.account()?, asked.wanted("name")?);
    let key = asked.market().change(|state| state.accounts.switch_key(account, name, is_live))?;
    Reply::ok(&shown(&key))
}

/// The amount goes into the wallet when the URL that is answered is opened.
pub(super) fn deposit(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let amount = positive(&mut fields, "amount");
    fields.text_if_any("description");
    fields.done()?;
    let id = asked.market().change(|state| state.accounts.checkout(account, amount))?;
    Reply::ok(&json!({ "url": format!("{}/checkout/{id}", asked.base_url) }))
}

pub(super) fn checkout(asked: Asked<'_>) -> Result<Reply, Refused> {
    asked.market().change(|state| state.accounts.pay_checkout(asked.id))?;
    Reply::ok(&json!({ "status": "paid" }))
}

pub(super) fn balance(asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    asked.market().read(|state| {
        let view = state.accounts.get(account).map(|account| BalanceView {
            wallet_balance: account.wallet,
            held_balance: account.held,
            currency: "USD",
        });
        Reply::ok(&view)
    })
}

pub(super) fn withdraw(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    let amount = positive(&mut fields, "amount");
    fields.done()?;
    asked.market().change(|state| {
        let account = state.accounts.get_mut(account).ok_or_else(|| Refused::not_found("User not found"))?;
        if !account.payable {
            return Err(Refused::bad_request("User has no Stripe account"));
        }
        let rest = account.wallet.minus(amount);
        account.wallet = rest.ok_or_else(|| Refused::bad_request("Insufficient balance"))?;
        Ok(())
    })?;
    Reply::ok(&json!({ "status": "ok" }))
}

pub(super) fn payment_account(mut asked: Asked<'_>) -> Result<Reply, Refused> {
    let account = asked.account()?;
    let mut fields = asked.take_fields()?;
    fields.text("country");
    fields.done()?;
    asked.market().change(|state| {
        if let Some(account) = state.accounts.get_mut(account) {
            account.payable = true;
        }
    });
    Reply::ok(&json!({ "url": asked.base_url }))
}

// === impl Profile ===

impl Profile<'_> {
    fn of(account: &Account) -> Profile<'_> {
        Profile {
            id: &account.id,
            email: &account.email,
            username: &account.username,
            fullname: &account.fullname,
        }
    }
}

/// A key without its secret.
fn shown(key: &ApiKey) -> Value {
    json!({ "name": key.name, "is_live": key.is_live })
}

fn positive(fields: &mut Fields, name: &'static str) -> NanoUsd {
    match fields.amount_if_any(name) {
        Some(NanoUsd::ZERO) => {
            fields.wrong("greater_than", name, "Input should be greater than 0", json!(0)).unwrap_or_default()
        }
        Some(amount) => amount,
        None => fields.amount(name), // it says what is missing
    }
}
