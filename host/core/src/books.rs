//! The books of one node: what it has leased of each account, what of that is held, and what holds
//! turned out to cost.
//!
//! The durable store knows leases, never holds: `spent + leased <= cap`, always. A node leases
//! headroom in blocks and holds from them, all accounts of an attempt or none. What an attempt cost
//! leaves the lease; the rest can be held again. So a node that dies can have promised no more than it
//! had leased, and several nodes cannot spend several caps.
//!
//! The pattern is escrow (O'Neil, "The Escrow Transactional Method", 1986).

use std::collections::HashMap;
use std::time::{Duration, Instant};

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

/// All accounts that this node has leased from.
#[derive(Debug, Default)]
pub struct Books {
    accounts: HashMap<AccountId, Account>,
}

#[derive(Debug)]
struct Account {
    mode: Mode,
    cap: NanoUsd,
    /// Settled or in doubt when the store was asked last.
    spent: NanoUsd,
    /// Settled here, and not in the store yet.
    unstored: NanoUsd,
    /// Of the cap, neither spent nor leased to anybody, when the store was asked last.
    headroom: NanoUsd,
    /// Leased to this node and not settled; `held` is part of it.
    lease: NanoUsd,
    held: NanoUsd,
    holds: u64,
    drawn_at: Instant,
}

/// The store's answer to who asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whether the cap is enforced.
    pub mode: Mode,
    /// The budget's cap.
    pub cap: NanoUsd,
    /// Settled or in doubt, on all nodes.
    pub spent: NanoUsd,
    /// Left of the cap, without this lease and all others.
    pub headroom: NanoUsd,
    /// Leased now, over what was leased before.
    pub leased: NanoUsd,
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
    /// Nothing is leased yet, or too little: the store is to be asked for more.
    Lease(AccountId),
    /// The store has no more. What others hold may come back.
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
    /// Holds `amount` on each of these accounts, or on none. `asked`: the store has just been asked,
    /// and what is short now is short there too.
    ///
    /// # Errors
    ///
    /// [`Short`], for the first account that lacks it.
    pub fn hold(
        &mut self,
        accounts: &[AccountId],
        amount: NanoUsd,
        asked: bool,
        now: Instant,
    ) -> Result<(), Short> {
        for id in accounts {
            let account = self.accounts.get(id).ok_or(Short::Lease(*id))?;
            // A lease may be from before the cap was lowered.
            let fits = amount <= account.free() && amount <= account.unspent().saturating_sub(account.held);
            if account.mode == Mode::Shadow || fits {
                continue;
            }
            if !asked {
                return Err(Short::Lease(*id));
            }
            return Err(if amount <= account.unspent() { Short::Held(*id) } else { Short::Exhausted(*id) });
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

    /// The rules of an account's budget, as who is about to hold on it knows them: an edit counts from
    /// its first call on, whatever was leased before.
    pub fn govern(&mut self, id: AccountId, mode: Mode, cap: NanoUsd) {
        if let Some(account) = self.accounts.get_mut(&id) {
            (account.mode, account.cap) = (mode, cap);
        }
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
            // What the lease does not cover comes out of what the store has left.
            let beyond_lease = charge.saturating_sub(account.lease);
            account.lease = account.lease.saturating_sub(charge);
            account.headroom = account.headroom.saturating_sub(beyond_lease);
            if charge > amount {
                overruns.push(Overrun { account: *id, beyond: charge.saturating_sub(amount) });
            }
        }
        overruns
    }

    /// So much of what was settled here is in the store now.
    pub fn stored(&mut self, id: AccountId, charge: NanoUsd) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.unstored = account.unstored.saturating_sub(charge);
            account.spent = account.spent.saturating_add(charge);
        }
    }

    /// Takes in what the store said, to which all has been told that [`Books::stored`] was called for.
    pub fn granted(&mut self, id: AccountId, grant: Grant, now: Instant) {
        let Grant { mode, cap, spent, headroom, leased } = grant;
        let account = self.accounts.entry(id).or_insert_with(|| Account {
            mode,
            cap,
            spent,
            unstored: NanoUsd::ZERO,
            headroom,
            lease: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            holds: 0,
            drawn_at: now,
        });
        (account.mode, account.cap, account.spent, account.headroom) = (mode, cap, spent, headroom);
        account.lease = account.lease.saturating_add(leased);
        account.drawn_at = now;
    }

    /// Leases that nobody has drawn on for a while, taken out: the store is to get them back. Accounts
    /// on which nothing is held are forgotten with it.
    pub fn idle(&mut self, now: Instant) -> Vec<(AccountId, NanoUsd)> {
        self.taken_back(|account| now.saturating_duration_since(account.drawn_at) >= IDLE_MAX)
    }

    /// All leases as far as nothing is held on them, taken out: at the end, or when caps have changed.
    pub fn all_free(&mut self) -> Vec<(AccountId, NanoUsd)> {
        self.taken_back(|_| true)
    }

    fn taken_back(&mut self, wanted: impl Fn(&Account) -> bool) -> Vec<(AccountId, NanoUsd)> {
        let mut back = Vec::new();
        for (id, account) in self.accounts.iter_mut().filter(|(_, account)| wanted(account)) {
            let free = account.free();
            account.lease = account.lease.saturating_sub(free);
            account.headroom = account.headroom.saturating_add(free);
            if free > NanoUsd::ZERO {
                back.push((*id, free));
            }
        }
        let is_needed = |account: &Account| account.holds > 0 || account.unstored > NanoUsd::ZERO;
        self.accounts.retain(|_, account| is_needed(account) || !wanted(account));
        back.sort_unstable();
        back
    }

    /// A lease that was taken out stays here after all: the store was not told.
    pub fn keep(&mut self, id: AccountId, free: NanoUsd) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.lease = account.lease.saturating_add(free);
            account.headroom = account.headroom.saturating_sub(free);
        }
    }

    /// Leased, and not held.
    pub fn free(&self, id: AccountId) -> NanoUsd {
        self.accounts.get(&id).map_or(NanoUsd::ZERO, Account::free)
    }

    /// What is known of an account; none before the store was asked for it.
    pub fn rest(&self, id: AccountId) -> Option<Rest> {
        let account = self.accounts.get(&id)?;
        Some(Rest { cap: account.cap, left: account.left(), held: account.held, holds: account.holds })
    }

    /// Whether a hold of this amount would need more of the store.
    pub fn is_short_of(&self, id: AccountId, amount: NanoUsd) -> bool {
        self.accounts.get(&id).is_none_or(|account| account.mode == Mode::Enforce && amount > account.free())
    }

    /// How many accounts are known.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Accounts that are known, with what is leased and what is held of it.
    pub fn leases(&self) -> impl Iterator<Item = (AccountId, NanoUsd, NanoUsd)> + '_ {
        self.accounts.iter().map(|(id, account)| (*id, account.lease, account.held))
    }
}

impl Account {
    /// Leased, and not held. Nothing where a debt has eaten the lease.
    fn free(&self) -> NanoUsd {
        self.lease.saturating_sub(self.held)
    }

    /// Of the cap, with what is held.
    fn unspent(&self) -> NanoUsd {
        self.cap.saturating_sub(self.spent).saturating_sub(self.unstored)
    }

    fn left(&self) -> NanoUsd {
        self.free().saturating_add(self.headroom).min(self.unspent().saturating_sub(self.held))
    }
}

#[cfg(test)]
mod tests;
