//! Who has an account: logins, keys and wallets.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::StatusCode;

use crate::base64;
use crate::market::chance::{Chance, Purpose};
use crate::market::detail::Refused;
use crate::market::money::NanoUsd;
use crate::market::script::AccountScript;

/// Most accounts of one market: 1,000.
const ACCOUNTS_MAX: usize = 1_000;

/// Most keys of one account: 100.
const KEYS_MAX: usize = 100;

/// Most logins that are good at once, and most checkouts: 10,000 each.
const SESSIONS_MAX: usize = 10_000;

/// All accounts of a market.
#[derive(Debug)]
pub(crate) struct Accounts {
    seed: u64,
    list: Vec<Account>,
    /// Whose key that is.
    by_key: HashMap<String, usize>,
    sessions: HashMap<String, Session>,
    checkouts: HashMap<String, Checkout>,
    secrets: u64,
}

#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) email: String,
    pub(crate) fullname: String,
    password: String,
    keys: Vec<ApiKey>,
    pub(crate) wallet: NanoUsd,
    /// Set aside for instances that it put on the market itself.
    pub(crate) held: NanoUsd,
    /// It may withdraw.
    pub(crate) payable: bool,
    pub(crate) tally: Tally,
}

/// What an account asked of the market.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests by route.
    pub(crate) requests: BTreeMap<&'static str, u64>,
    /// Proposals by the status that they were answered with.
    pub(crate) proposals: BTreeMap<u16, u64>,
    /// Proposals for an instance that had one of the account already.
    pub(crate) duplicates: u64,
}

/// A name for machines.
#[derive(Clone, Debug)]
pub(crate) struct ApiKey {
    pub(crate) name: String,
    pub(crate) secret: String,
    pub(crate) is_live: bool,
}

/// A login.
#[derive(Debug)]
struct Session {
    account: usize,
    /// Since the market began.
    ends: Duration,
}

/// A page that an amount is paid on.
#[derive(Debug)]
struct Checkout {
    account: usize,
    amount: NanoUsd,
    paid: bool,
}

/// Who somebody wants to be.
pub(crate) struct Registration {
    pub(crate) email: String,
    pub(crate) username: String,
    pub(crate) fullname: String,
    pub(crate) password: String,
}

// === impl Accounts ===

impl Accounts {
    pub(crate) fn new(seed: u64, scripted: &[AccountScript]) -> Accounts {
        let mut accounts = Accounts {
            seed,
            list: Vec::new(),
            by_key: HashMap::new(),
            sessions: HashMap::new(),
            checkouts: HashMap::new(),
            secrets: 0,
        };
        for script in scripted.iter().take(ACCOUNTS_MAX) {
            let index = accounts.add(Registration {
                email: format!("{}@example.com", script.username),
                username: script.username.clone(),
                fullname: script.username.clone(),
                password: script.password.clone(),
            });
            if let Some(account) = accounts.list.get_mut(index) {
                account.wallet = script.balance;
            }
            if let Some(secret) = &script.api_key {
                accounts.add_key(index, "script", secret.clone(), true);
            }
        }
        accounts
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Account> {
        self.list.get(index)
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Account> {
        self.list.get_mut(index)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.list.iter()
    }

    /// The id of the script's rival of this index.
    pub(crate) fn rival_id(&self, rival: usize) -> String {
        Chance::of(self.seed, Purpose::Identity, &[4, rival as u64]).uuid()
    }

    pub(crate) fn register(&mut self, wanted: Registration) -> Result<usize, Refused> {
        let taken = |account: &Account| account.username == wanted.username || account.email == wanted.email;
        if self.list.iter().any(taken) {
            return Err(Refused::bad_request("Username or email already registered"));
        }
        if self.list.len() >= ACCOUNTS_MAX {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "Too many accounts"));
        }
        Ok(self.add(wanted))
    }

    /// A token for who has this name, or e-mail, and password.
    pub(crate) fn login(
        &mut self,
        name: &str,
        password: &str,
        now: Duration,
        life: Duration,
    ) -> Result<String, Refused> {
        let named = |account: &Account| account.username == name || account.email == name;
        let account = self.list.iter().position(|account| named(account) && account.password == password);
        let Some(account) = account else {
            return Err(Refused::unauthorized("Incorrect username or password"));
        };
        self.sessions.retain(|_, session| session.ends > now);
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "Too many logins"));
        }
        let ends = now.saturating_add(life);
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let payload = serde_json::json!({ "sub": name, "exp_ms": ends.as_millis() as u64 });
        let token = [url64(header), url64(&payload.to_string()), self.secret()].join(".");
        self.sessions.insert(token.clone(), Session { account, ends });
        Ok(token)
    }

    /// Whose login that is, as long as it is good.
    pub(crate) fn by_token(&self, token: &str, now: Duration) -> Option<usize> {
        self.sessions.get(token).filter(|session| session.ends > now).map(|session| session.account)
    }

    /// Whose key that is, if it is live.
    pub(crate) fn by_key(&self, secret: &str) -> Option<usize> {
        let index = *self.by_key.get(secret)?;
        let mut keys = self.list.get(index)?.keys.iter();
        keys.any(|key| key.secret == secret && key.is_live).then_some(index)
    }

    pub(crate) fn keys(&self, account: usize) -> &[ApiKey] {
        self.list.get(account).map(|account| &account.keys[..]).unwrap_or_default()
    }

    /// Makes a key; it is shown this once.
    pub(crate) fn create_key(
        &mut self,
        account: usize,
        name: &str,
        is_live: bool,
    ) -> Result<ApiKey, Refused> {
        let keys = self.keys(account);
        if keys.iter().any(|key| key.name == name) {
            return Err(Refused::bad_request("An API key with that name already exists"));
        }
        if keys.len() >= KEYS_MAX {
            return Err(Refused::bad_request("Too many API keys"));
        }
        let secret = format!("mk-{}", self.secret());
        Ok(self.add_key(account, name, secret, is_live))
    }

    pub(crate) fn delete_key(&mut self, account: usize, name: &str) -> Result<(), Refused> {
        let keys = self.list.get_mut(account).map(|account| &mut account.keys);
        let at = keys.and_then(|keys| keys.iter().position(|key| key.name == name).map(|at| keys.remove(at)));
        let key = at.ok_or_else(|| Refused::not_found("API key not found"))?;
        self.by_key.remove(&key.secret);
        Ok(())
    }

    pub(crate) fn switch_key(
        &mut self,
        account: usize,
        name: &str,
        is_live: bool,
    ) -> Result<ApiKey, Refused> {
        let mut keys = self.list.get_mut(account).into_iter().flat_map(|account| account.keys.iter_mut());
        let key = keys.find(|key| key.name == name).ok_or_else(|| Refused::not_found("API key not found"))?;
        key.is_live = is_live;
        Ok(key.clone())
    }

    /// Opens a page that the amount is paid on; the answer is its id.
    pub(crate) fn checkout(&mut self, account: usize, amount: NanoUsd) -> Result<String, Refused> {
        if self.checkouts.len() >= SESSIONS_MAX {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "Too many checkouts"));
        }
        let id = self.secret();
        self.checkouts.insert(id.clone(), Checkout { account, amount, paid: false });
        Ok(id)
    }

    /// Pays: once, however often the page is opened.
    pub(crate) fn pay_checkout(&mut self, id: &str) -> Result<(), Refused> {
        let checkout = self.checkouts.get_mut(id).ok_or_else(|| Refused::not_found("Checkout not found"))?;
        if std::mem::replace(&mut checkout.paid, true) {
            return Ok(());
        }
        let (account, amount) = (checkout.account, checkout.amount);
        self.credit(account, amount);
        Ok(())
    }

    /// Puts an amount into a wallet. Sums stay far below what fits: there are
    /// bounds on accounts, checkouts, instances and each amount.
    pub(crate) fn credit(&mut self, account: usize, amount: NanoUsd) {
        if let Some(account) = self.list.get_mut(account) {
            account.wallet = account.wallet.plus(amount).unwrap_or(account.wallet);
        }
    }

    fn add(&mut self, wanted: Registration) -> usize {
        let index = self.list.len();
        let Registration { email, username, fullname, password } = wanted;
        self.list.push(Account {
            id: Chance::of(self.seed, Purpose::Identity, &[1, index as u64]).uuid(),
            username,
            email,
            fullname,
            password,
            keys: Vec::new(),
            wallet: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            payable: false,
            tally: Tally::default(),
        });
        index
    }

    fn add_key(&mut self, account: usize, name: &str, secret: String, is_live: bool) -> ApiKey {
        let key = ApiKey { name: name.to_owned(), secret, is_live };
        self.by_key.insert(key.secret.clone(), account);
        if let Some(account) = self.list.get_mut(account) {
            account.keys.push(key.clone());
        }
        key
    }

    fn secret(&mut self) -> String {
        self.secrets += 1;
        Chance::of(self.seed, Purpose::Secret, &[self.secrets]).secret()
    }
}

/// Base64 as it stands in a token.
fn url64(text: &str) -> String {
    base64::encode(text.as_bytes()).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Accounts, Registration};
    use crate::market::money::NanoUsd;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn one() -> (Accounts, usize) {
        let mut accounts = Accounts::new(7, &[]);
        let text = |text: &str| text.to_owned();
        let wanted = Registration {
            email: text("a@b.c"),
            username: text("a"),
            fullname: text("A"),
            password: text("p"),
        };
        let index = accounts.register(wanted).unwrap();
        (accounts, index)
    }

    #[test]
    fn a_login_ends_and_needs_the_password() {
        let (mut accounts, index) = one();
        let token = accounts.login("a@b.c", "p", Duration::ZERO, HOUR).unwrap();
        assert_eq!(token.split('.').count(), 3, "{token}");
        assert_eq!(accounts.by_token(&token, HOUR - Duration::from_millis(1)), Some(index));
        assert_eq!(accounts.by_token(&token, HOUR), None);
        for (name, password) in [("a", "q"), ("b", "p")] {
            assert_eq!(accounts.login(name, password, Duration::ZERO, HOUR).unwrap_err().status, 401);
        }
    }

    #[test]
    fn a_key_is_good_while_it_is_live() {
        let (mut accounts, index) = one();
        let key = accounts.create_key(index, "k", true).unwrap().secret;
        assert_eq!(accounts.by_key(&key), Some(index));
        assert_eq!(accounts.create_key(index, "k", true).unwrap_err().status, 400);
        accounts.switch_key(index, "k", false).unwrap();
        assert_eq!(accounts.by_key(&key), None);
        accounts.switch_key(index, "k", true).unwrap();
        assert_eq!(accounts.by_key(&key), Some(index));
        accounts.delete_key(index, "k").unwrap();
        assert_eq!(accounts.by_key(&key), None);
        assert_eq!(accounts.delete_key(index, "k").unwrap_err().status, 404);
    }

    #[test]
    fn a_checkout_is_paid_once() {
        let (mut accounts, index) = one();
        let amount = NanoUsd::from_nanos(7);
        let id = accounts.checkout(index, amount).unwrap();
        for _ in 0..3 {
            accounts.pay_checkout(&id).unwrap();
        }
        assert_eq!(accounts.get(index).unwrap().wallet, amount);
    }
}
