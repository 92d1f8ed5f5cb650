//! `sluice market`: an account at the market, its login, its key and its money.
//!
//! What the market gives is sealed in the data folder and never printed. A gateway that runs there reads
//! it when it needs it, so nothing has to be told to it.

use std::io::{self, Write};

use serde_json::{Value, json};
use sluice_core::money::NanoUsd;
use sluice_ledger::audit::Act;
use sluice_ledger::seal::{Name, SealError, SecretStore};
use sluice_ledger::store::StoreError;

use super::client::{Client, ClientError, Credential, Registration};
use super::contract::{InstanceId, Profile};
use super::error::MarketError;
use super::reporting::report;
use super::wire::printable;
use crate::cli::MarketCommand;
use crate::commands::{ACTOR, make_data_folder, time};
use crate::config::{Config, Environment, Market, Secret};
use crate::money::unix_ms;
use crate::upstream;

/// Where a password is taken from, if it is there; else it is asked for.
const PASSWORD: &str = "SLUICE_MARKET_PASSWORD";

/// Characters of a message that are shown.
const MESSAGE_CHARS_MAX: usize = 100_000;

/// How long a login is good where its token does not say so: a little less than the hour that the
/// market's own page reckons with.
const TOKEN_LIFE_MS: u64 = 55 * 60 * 1000;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("reading the market's jobs")]
    Report(#[from] StoreError),
    #[error("the database {file}")]
    Store { file: String, source: StoreError },
    #[error("the market has made the key, but it cannot be kept and is lost: make another, by another name")]
    Lost(#[source] SealError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    #[error("{0}")]
    Refused(String),
    #[error("the terminal, or the data folder")]
    Io(#[from] io::Error),
}

/// What is asked of the market, for what is to be done when it says no.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Register,
    Login,
    CreateKey,
    Deposit,
    Balance,
    Chat,
}

/// All that a command works with.
struct Account {
    client: Client,
    secrets: SecretStore,
    market: Market,
    workers: tokio::runtime::Runtime,
}

/// A login that is kept.
enum Kept {
    Good { token: Secret, expires_ms: u64 },
    Expired { since_ms: u64 },
    None,
}

/// Does it, and prints what came of it.
///
/// # Errors
///
/// [`AccountError`]; each says what to do.
pub(crate) fn market(
    config: &Config,
    environment: &Environment,
    command: &MarketCommand,
) -> Result<(), AccountError> {
    let mut account = Account::open(config)?;
    match command {
        MarketCommand::Register { email, username, full_name } => {
            let password = password(environment, true)?;
            account.register(&Registration { email, username, full_name, password: &password })
        }
        MarketCommand::Login { username } => {
            let password = password(environment, false)?;
            account.login(username, &password)
        }
        MarketCommand::CreateApiKey { name, replace } => account.create_key(name, *replace),
        MarketCommand::Deposit { amount, description } => account.deposit(amount, description.as_deref()),
        MarketCommand::Balance => account.balance(),
        MarketCommand::Status => account.status(),
        MarketCommand::Report(args) => report(account.secrets.store(), args),
        MarketCommand::Chat { job, message } => account.chat(job, message.as_deref()),
        MarketCommand::Forget => account.forget(),
    }
}

impl Account {
    fn open(config: &Config) -> Result<Account, AccountError> {
        let market = config.market.clone().or_else(Market::standard);
        let market = market.ok_or_else(|| refused("the address of the market is no URL"))?;
        let folder = &config.server.data_dir;
        make_data_folder(folder)?;
        let failed =
            |source| AccountError::Store { file: folder.join("sluice.db").display().to_string(), source };
        let secrets = SecretStore::open(folder, config.server.master_key.clone()).map_err(failed)?;
        let client = Client::new(&market.base_url, upstream::tls()?)?;
        let workers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Account { client, secrets, market, workers })
    }

    fn register(&mut self, new: &Registration<'_>) -> Result<(), AccountError> {
        let answer = self.workers.block_on(self.client.register(new));
        self.note("market.register", new.username, &json!({}), answer.as_ref().err())?;
        answer.map_err(|error| advised(&error, Asked::Register))?;
        let name = new.username;
        eprintln!(
            "there is an account {name:?} at {}; go on with `sluice market login --username {name}`",
            self.market.base_url
        );
        Ok(())
    }

    fn login(&mut self, username: &str, password: &Secret) -> Result<(), AccountError> {
        self.secrets.prepare()?;
        let answer = self.workers.block_on(self.client.login(username, password));
        let login = match answer {
            Ok(login) => login,
            Err(error) => {
                self.note("market.login", username, &json!({}), Some(&error))?;
                return Err(advised(&error, Asked::Login));
            }
        };
        let now_ms = unix_ms();
        let expires_ms = login.expires_ms.unwrap_or_else(|| now_ms.saturating_add(TOKEN_LIFE_MS));
        let detail = json!({"expires_ms": expires_ms});
        let act = self.act("market.login", username, &detail, "done");
        self.secrets.keep(Name::MarketToken, login.token.reveal().as_bytes(), Some(expires_ms), &act)?;
        eprintln!("logged in until {}", time(expires_ms));
        Ok(())
    }

    fn create_key(&mut self, name: &str, replace: bool) -> Result<(), AccountError> {
        // It is shown once: whether it can be kept has to be clear before.
        self.secrets.prepare()?;
        let there = self.secrets.read(Name::MarketKey)?.is_some();
        if there && !replace {
            return Err(refused(
                "there is a key already; with --replace this gateway goes by the new one (the old one goes on working at the market)",
            ));
        }
        let person = self.person()?;
        let detail = json!({"replaces": there});
        let key = match self.workers.block_on(self.client.create_api_key(&person, name)) {
            Ok(key) => key,
            Err(error) => {
                self.note("market.key", name, &detail, Some(&error))?;
                return Err(advised(&error, Asked::CreateKey));
            }
        };
        let act = self.act("market.key", name, &detail, "done");
        let kept = self.secrets.keep(Name::MarketKey, key.reveal().as_bytes(), None, &act);
        kept.map_err(AccountError::Lost)?;
        eprintln!("the key {name:?} is kept, sealed; it is not shown");
        if self.market.api_key.is_some() {
            eprintln!("but [market] api_key of the configuration goes before it");
        }
        Ok(())
    }

    fn deposit(&mut self, amount: &str, description: Option<&str>) -> Result<(), AccountError> {
        let dollars: NanoUsd = amount.parse().map_err(|error| refused(format!("{amount:?}: {error}")))?;
        if dollars == NanoUsd::ZERO || dollars > NanoUsd::ATTEMPT_MAX {
            return Err(refused(format!("wanted more than 0 and at most {} dollars", NanoUsd::ATTEMPT_MAX)));
        }
        let who = self.anybody()?;
        let answer = self.workers.block_on(self.client.deposit(&who, dollars, description));
        let detail = json!({"amount_usd": dollars.to_string()});
        self.note("market.deposit", self.market.base_url.clone().as_str(), &detail, answer.as_ref().err())?;
        let page = answer.map_err(|error| advised(&error, Asked::Deposit))?;
        writeln!(io::stdout(), "{page}")?;
        eprintln!("{dollars} USD are on the account when they are paid on that page");
        Ok(())
    }

    fn balance(&mut self) -> Result<(), AccountError> {
        let who = self.anybody()?;
        let answer = self.workers.block_on(self.client.balance(&who));
        let balance = answer.map_err(|error| advised(&error, Asked::Balance))?;
        let mut out = io::stdout().lock();
        writeln!(out, "available  {} {}", balance.wallet, balance.currency)?;
        writeln!(out, "held       {} {}", balance.held, balance.currency)?;
        Ok(())
    }

    /// Says what is there; that the market cannot be asked is no error.
    fn status(&mut self) -> Result<(), AccountError> {
        let login = match self.kept_login()? {
            Kept::None => "none; `sluice market login --username NAME`".to_owned(),
            Kept::Expired { since_ms } => {
                format!("expired {}; `sluice market login --username NAME`", time(since_ms))
            }
            Kept::Good { token, expires_ms } => {
                let me = self.workers.block_on(self.client.me(&Credential::Token(token)));
                let who = me.map_or_else(|error| format!("unknown: {error}"), |profile| shown(&profile));
                format!("{who}, until {}", time(expires_ms))
            }
        };
        let key = match (&self.market.api_key, self.secrets.read(Name::MarketKey)?) {
            (Some(_), _) => "of the configuration".to_owned(),
            (None, Some(key)) => format!("kept since {}", time(key.sealed_ms)),
            (None, None) => "none; `sluice market create-api-key --name NAME`".to_owned(),
        };
        let balance = match self.anybody() {
            Ok(who) => match self.workers.block_on(self.client.balance(&who)) {
                Ok(balance) => format!("{} {}, and {} held", balance.wallet, balance.currency, balance.held),
                Err(error) => format!("unknown: {error}"),
            },
            Err(AccountError::Refused(_)) => "unknown: nobody is logged in, and there is no key".to_owned(),
            Err(error) => return Err(error),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "market   {}", self.market.base_url)?;
        writeln!(out, "login    {login}")?;
        writeln!(out, "API key  {key}")?;
        writeln!(out, "balance  {balance}")?;
        Ok(())
    }

    /// Lists the messages of a job, or writes one.
    fn chat(&mut self, job: &str, message: Option<&str>) -> Result<(), AccountError> {
        let id: InstanceId = job.parse().map_err(|error| refused(format!("{job:?}: {error}")))?;
        let who = self.anybody()?;
        let Some(message) = message else {
            let listed = self.workers.block_on(self.client.chat(&who, &id));
            let listed = listed.map_err(|error| advised(&error, Asked::Chat))?;
            let mut out = io::stdout().lock();
            for said in &listed.items {
                let (at, sender) = (said.at_ms.map_or_else(String::new, time), said.sender.name());
                writeln!(out, "{at}  {sender}  {}", printable(&said.message, MESSAGE_CHARS_MAX))?;
            }
            return Ok(());
        };
        let answer = self.workers.block_on(self.client.send_message(&who, &id, message));
        self.note("market.chat", job, &json!({"chars": message.chars().count()}), answer.as_ref().err())?;
        answer.map_err(|error| advised(&error, Asked::Chat))
    }

    fn forget(&mut self) -> Result<(), AccountError> {
        let detail = json!({});
        let act = self.act("market.forget", "all", &detail, "done");
        self.secrets.forget_all(&act).map_err(SealError::from)?;
        eprintln!(
            "login, key and the secret of jobs are forgotten: jobs that were won before cannot be served any more"
        );
        Ok(())
    }

    /// Only a person may do this.
    fn person(&self) -> Result<Credential, AccountError> {
        match self.kept_login()? {
            Kept::Good { token, .. } => Ok(Credential::Token(token)),
            Kept::Expired { since_ms } => Err(refused(format!(
                "the login has expired, at {}: log in again with `sluice market login --username NAME`",
                time(since_ms)
            ))),
            Kept::None => {
                Err(refused("nobody is logged in: log in with `sluice market login --username NAME`"))
            }
        }
    }

    /// A login, if there is a good one, else the API key.
    fn anybody(&self) -> Result<Credential, AccountError> {
        let person = match self.person() {
            Ok(person) => return Ok(person),
            Err(error) => error,
        };
        if let Some(key) = &self.market.api_key {
            return Ok(Credential::Key(key.clone()));
        }
        let kept = self.secrets.read(Name::MarketKey)?;
        let key = kept.and_then(|key| key.plain.reveal_text().and_then(Secret::new));
        key.map(Credential::Key).ok_or(person)
    }

    fn kept_login(&self) -> Result<Kept, AccountError> {
        let Some(kept) = self.secrets.read(Name::MarketToken)? else { return Ok(Kept::None) };
        let expires_ms = kept.expires_ms.unwrap_or(0);
        match kept.plain.reveal_text().and_then(Secret::new) {
            Some(token) if unix_ms() < expires_ms => Ok(Kept::Good { token, expires_ms }),
            Some(_) | None => Ok(Kept::Expired { since_ms: expires_ms }),
        }
    }

    fn act<'a>(
        &self,
        act: &'static str,
        subject: &'a str,
        detail: &'a Value,
        outcome: &'static str,
    ) -> Act<'a> {
        Act { at_ms: unix_ms(), actor: ACTOR, act, subject, detail, outcome }
    }

    /// A row of the audit for what the market was asked.
    fn note(
        &mut self,
        act: &'static str,
        subject: &str,
        detail: &Value,
        error: Option<&MarketError>,
    ) -> Result<(), AccountError> {
        let act = self.act(act, subject, detail, error.map_or("done", MarketError::code));
        Ok(self.secrets.store().add_act(&act).map_err(SealError::from)?)
    }
}

/// A password, from the environment or from the terminal, where it is not shown.
fn password(environment: &Environment, twice: bool) -> Result<Secret, AccountError> {
    if let Some(given) = environment.get(PASSWORD) {
        return Secret::verbatim(given).ok_or_else(|| refused("the password is empty"));
    }
    let ask = |prompt: &str| {
        let asked = rpassword::prompt_password(prompt);
        asked.map_err(|_| refused(format!("there is no terminal to ask for the password: set {PASSWORD}")))
    };
    let password = ask("password: ")?;
    if twice && ask("once more: ")? != password {
        return Err(refused("these are two passwords"));
    }
    Secret::verbatim(&password).ok_or_else(|| refused("the password is empty"))
}

fn shown(profile: &Profile) -> String {
    let Profile { username, email } = profile;
    match (username, email) {
        (Some(name), Some(email)) => format!("{name} ({email})"),
        (Some(only), None) | (None, Some(only)) => only.clone(),
        (None, None) => "somebody".to_owned(),
    }
}

fn refused(text: impl Into<String>) -> AccountError {
    AccountError::Refused(text.into())
}

/// What the market said, and what to do about it.
fn advised(error: &MarketError, asked: Asked) -> AccountError {
    let perhaps_done = matches!(asked, Asked::Register | Asked::CreateKey | Asked::Deposit);
    let advice = match error {
        MarketError::Unreachable { .. } => "is [market] base_url right, and the network there?",
        MarketError::Timeout | MarketError::Server { .. } if perhaps_done => {
            "try again later; it may have been done nevertheless"
        }
        MarketError::Timeout | MarketError::Server { .. } | MarketError::Throttled { .. } => {
            "try again later"
        }
        MarketError::Unauthorized { .. } => match asked {
            Asked::Login => "it does not know this name with this password",
            Asked::Register | Asked::CreateKey | Asked::Deposit | Asked::Balance | Asked::Chat => {
                "log in again with `sluice market login --username NAME`"
            }
        },
        MarketError::Balance { .. } | MarketError::Refused { .. } => match asked {
            Asked::Register => "another name, address or password may do",
            Asked::Login => "it does not know this name with this password",
            Asked::CreateKey => "another name may do",
            Asked::Deposit => "another amount may do",
            Asked::Balance => "its own page may tell more",
            Asked::Chat => "only who has won a job, and who has put it there, may read and write",
        },
        MarketError::Garbage { .. } => "is [market] base_url that of the market's API?",
    };
    refused(format!("{error}; {advice}"))
}
