//! The books of one node: what it has leased of each account, what of that is held, and what holds
//! turned out to cost.
//!
//! The durable store knows leases, never holds: `spent + leased <= cap`, always. A node leases
//! headroom in blocks and holds from them, all accounts of an attempt or none. What an attempt cost
//! leaves the lease; the rest can be held again. So a node that dies can have promised no more than it
//! had leased, and several nodes cannot spend several caps.
//!
//! The pattern is escrow (O'Neil, "The Escrow Transactional Method", 1986).

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::money::NanoUsd;

/// A lease that nobody draws on goes back to the store after this time.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// An account's number in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// What becomes of a hold that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It is counted, and let through.
    Shadow,
}

/// A budget's cap, as the operator has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// For each account.
    pub amount: NanoUsd,
    /// Whether it refuses.
    pub mode: Mode,
}

/// All accounts that this node has leased from.
#[derive(Debug, Default)]
pub struct Books {
    /// By numbers that no caller chooses.
    accounts: FxHashMap<AccountId, Account>,
}

#[derive(Debug)]
struct Account {
    cap: Cap,
    /// Settled or in doubt, as the store has it.
    spent: NanoUsd,
    /// Leased to other nodes, when the store was asked last.
    elsewhere: NanoUsd,
    /// Leased to this node, as the store has it.
    lease: NanoUsd,
    /// Settled here, and not in the store yet.
    unstored: NanoUsd,
    /// Of the lease, on its way back to the store.
    returning: NanoUsd,
    held: NanoUsd,
    holds: u64,
    drawn_at: Instant,
}

/// An account as the store has it, for who asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Settled or in doubt, on all nodes.
    pub spent: NanoUsd,
    /// Leased to other nodes.
    pub elsewhere: NanoUsd,
    /// Leased to this node, in all.
    pub lease: NanoUsd,
}

/// What of an account a caller can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The budget's cap.
    pub cap: NanoUsd,
    /// Neither spent, nor held, nor leased to other nodes.
    pub left: NanoUsd,
    /// Held here.
    pub held: NanoUsd,
    /// Holds under way here.
    pub holds: u64,
}

/// Why nothing was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// Nothing is leased yet, or too little, and the store may have more: it is to be asked.
    Lease(AccountId),
    /// There is no more. What others hold may come back.
    Held(AccountId),
    /// It would not fit if all that is held came back.
    Exhausted(AccountId),
}

/// What settling an attempt said of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// Which.
    pub account: AccountId,
    /// Cost beyond what was held: it is debt of the account.
    pub beyond: NanoUsd,
}

impl Books {
    /// Holds `amount` on each of these accounts, or on none. `asked`: the store has just been asked. An
    /// account may be named once.
    ///
    /// # Errors
    ///
    /// [`Short`], for an account that lacks it. Who has asked is told to ask again only where somebody
    /// else was faster and there is enough of all of them all the same.
    pub fn hold(
        &mut self,
        accounts: &[AccountId],
        amount: NanoUsd,
        asked: bool,
        now: Instant,
    ) -> Result<(), Short> {
        let mut short = None;
        for id in accounts {
            let account = self.accounts.get(id).ok_or(Short::Lease(*id))?;
            let fits = amount <= account.left();
            if account.cap.mode == Mode::Shadow || (fits && amount <= account.free()) {
                continue;
            }
            if !asked {
                return Err(Short::Lease(*id));
            }
            if !fits {
                return Err(if amount <= account.unspent() {
                    Short::Held(*id)
                } else {
                    Short::Exhausted(*id)
                });
            }
            short = Some(Short::Lease(*id));
        }
        if let Some(short) = short {
            return Err(short);
        }
        for id in accounts {
            if let Some(account) = self.accounts.get_mut(id) {
                account.held = account.held.saturating_add(amount);
                account.holds += 1;
                account.drawn_at = now;
            }
        }
        Ok(())
    }

    /// Ends a hold: `charge` is what the attempt cost; nothing, where nothing was sent. Once for each
    /// hold. Gives the accounts on which the cost was beyond what was held.
    pub fn settle(&mut self, accounts: &[AccountId], amount: NanoUsd, charge: NanoUsd) -> Vec<Overrun> {
        let mut overruns = Vec::new();
        for id in accounts {
            let Some(account) = self.accounts.get_mut(id) else { continue };
            account.held = account.held.saturating_sub(amount);
            account.holds = account.holds.saturating_sub(1);
            account.unstored = account.unstored.saturating_add(charge);
            if charge > amount {
                overruns.push(Overrun { account: *id, beyond: charge.saturating_sub(amount) });
            }
        }
        overruns
    }

    /// So much of what was settled here is in the store now. It came out of the lease there; what the
    /// lease did not cover, out of what is left of the cap.
    pub fn stored(&mut self, id: AccountId, charge: NanoUsd) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.unstored = account.unstored.saturating_sub(charge);
            account.spent = account.spent.saturating_add(charge);
            account.lease = account.lease.saturating_sub(charge);
        }
    }

    /// Takes in what the store said, to which all has been told that [`Books::stored`] and
    /// [`Books::returned`] were called for. What was settled here since then still comes out of it.
    pub fn granted(&mut self, id: AccountId, cap: Cap, grant: Grant, now: Instant) {
        let account = self.accounts.entry(id).or_insert_with(|| Account::new(cap, now));
        let Grant { spent, elsewhere, lease } = grant;
        (account.spent, account.elsewhere, account.lease) = (spent, elsewhere, lease);
        account.cap = cap;
        account.drawn_at = now;
    }

    /// The operator has changed a cap, or may have: it holds from now on, for what is leased too.
    pub fn go_by(&mut self, id: AccountId, cap: Cap) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.cap = cap;
        }
    }

    /// Leases that nobody has drawn on for a while, and what of others is more than the cap has left, as
    /// far as nothing is held on them: the store is to get them back. Of each, [`Books::returned`] or
    /// [`Books::kept`] says what came of it. Accounts of which nothing is left to say are forgotten.
    pub fn idle(&mut self, now: Instant) -> Vec<(AccountId, NanoUsd)> {
        self.taken_back(|account| now.saturating_duration_since(account.drawn_at) >= IDLE_MAX)
    }

    /// The same of all leases, at the end.
    pub fn all_free(&mut self) -> Vec<(AccountId, NanoUsd)> {
        self.taken_back(|_| true)
    }

    fn taken_back(&mut self, rests: impl Fn(&Account) -> bool) -> Vec<(AccountId, NanoUsd)> {
        self.accounts.retain(|_, account| account.is_needed() || !rests(account));
        let mut back = Vec::new();
        for (id, account) in &mut self.accounts {
            let free = account.free();
            let free = if rests(account) { free } else { free.saturating_sub(account.left()) };
            account.returning = account.returning.saturating_add(free);
            if free > NanoUsd::ZERO {
                back.push((*id, free));
            }
        }
        back.sort_unstable();
        back
    }

    /// The store has got a lease back. An account of which nothing else is left is forgotten.
    pub fn returned(&mut self, id: AccountId, free: NanoUsd) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.lease = account.lease.saturating_sub(free);
        account.returning = account.returning.saturating_sub(free);
        if !account.is_needed() {
            self.accounts.remove(&id);
        }
    }

    /// The store was not told: the lease stays here, and can be drawn on.
    pub fn kept(&mut self, id: AccountId, free: NanoUsd) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.returning = account.returning.saturating_sub(free);
        }
    }

    /// What a lease has to cover: held, or settled and not in the store.
    pub fn promised(&self, id: AccountId) -> NanoUsd {
        self.accounts.get(&id).map_or(NanoUsd::ZERO, Account::promised)
    }

    /// What is known of an account; none before the store was asked for it.
    pub fn rest(&self, id: AccountId) -> Option<Rest> {
        let account = self.accounts.get(&id)?;
        let Account { held, holds, .. } = *account;
        Some(Rest { cap: account.cap.amount, left: account.left(), held, holds })
    }

    /// How many accounts are known.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Accounts that are known, with what is leased and not spent, and what is held of it.
    pub fn leases(&self) -> impl Iterator<Item = (AccountId, NanoUsd, NanoUsd)> + '_ {
        self.accounts.iter().map(|(id, account)| (*id, account.unsettled(), account.held))
    }
}

impl Account {
    fn new(cap: Cap, now: Instant) -> Account {
        Account {
            cap,
            spent: NanoUsd::ZERO,
            elsewhere: NanoUsd::ZERO,
            lease: NanoUsd::ZERO,
            unstored: NanoUsd::ZERO,
            returning: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            holds: 0,
            drawn_at: now,
        }
    }

    fn promised(&self) -> NanoUsd {
        self.held.saturating_add(self.unstored)
    }

    /// Leased, and neither settled nor on its way back.
    fn unsettled(&self) -> NanoUsd {
        self.lease.saturating_sub(self.returning).saturating_sub(self.unstored)
    }

    /// Leased, and not held. Nothing where a debt has eaten the lease.
    fn free(&self) -> NanoUsd {
        self.unsettled().saturating_sub(self.held)
    }

    /// Of the cap, not spent.
    fn unspent(&self) -> NanoUsd {
        self.cap.amount.saturating_sub(self.spent).saturating_sub(self.unstored)
    }

    /// Of the cap, neither spent nor held, nor leased to others.
    fn left(&self) -> NanoUsd {
        self.unspent().saturating_sub(self.elsewhere).saturating_sub(self.held)
    }

    /// Something is under way, or the store has to be told something.
    fn is_needed(&self) -> bool {
        self.holds > 0 || self.unstored > NanoUsd::ZERO || self.lease > NanoUsd::ZERO
    }
}

#[cfg(test)]
mod tests;
