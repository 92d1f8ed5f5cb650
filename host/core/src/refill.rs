//! What the store leases for those who wait for it: enough for all whose wish fits, and nothing where
//! nothing lacks.
//!
//! Who waits for several accounts gets something of all of them, or of none.

use crate::books::{Cap, Grant, Mode};
use crate::money::NanoUsd;
use crate::vault::Vault;

/// An account that somebody waits for, while the store is asked.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    cap: Cap,
    vault: Vault,
    /// Of what is leased, this node's.
    lease: NanoUsd,
    /// What the lease has to cover: what is promised on this node and not in the store, and the wishes
    /// of those who were let in.
    needed: NanoUsd,
}

impl Wanted {
    /// `lease`: this node's part of what the vault has leased;
    /// `promised`: held or settled on this node, and not in the vault.
    pub fn new(cap: Cap, vault: Vault, lease: NanoUsd, promised: NanoUsd) -> Wanted {
        Wanted { cap, vault, lease, needed: promised }
    }

    fn fits(&self, amount: NanoUsd) -> bool {
        let needed = self.needed.saturating_add(amount);
        self.cap.mode == Mode::Shadow || needed <= self.cap.amount.saturating_sub(self.spent_elsewhere())
    }

    /// Leases what lacks, and gives how much that is.
    pub fn lease(&mut self) -> NanoUsd {
        if self.cap.mode == Mode::Shadow {
            return NanoUsd::ZERO;
        }
        let lacking = self.needed.saturating_sub(self.lease);
        let leased = self.vault.lease(self.cap.amount, lacking);
        self.lease = self.lease.saturating_add(leased);
        leased
    }

    /// What the node is told of it.
    pub fn grant(&self) -> Grant {
        let Wanted { vault, lease, .. } = *self;
        Grant { spent: vault.spent(), elsewhere: vault.leased.saturating_sub(lease), lease }
    }

    fn spent_elsewhere(&self) -> NanoUsd {
        self.vault.spent().saturating_add(self.vault.leased.saturating_sub(self.lease))
    }
}

/// Lets somebody in who wants `amount` of each of these accounts, given by their places: what it needs
/// is leased, if all of them have it. Who is not let in, by the answer, is refused.
pub fn let_in(wanted: &mut [Wanted], places: &[usize], amount: NanoUsd) -> bool {
    let fits = |place: &usize| wanted.get(*place).is_some_and(|wanted| wanted.fits(amount));
    if !places.iter().all(fits) {
        return false;
    }
    for place in places {
        if let Some(wanted) = wanted.get_mut(*place) {
            wanted.needed = wanted.needed.saturating_add(amount);
        }
    }
    true
}
