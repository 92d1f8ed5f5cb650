//! An account as the durable store has it: what is spent of a cap, and what is leased to nodes.
//!
//! `settled + in_doubt + leased <= cap`, but for what an attempt cost beyond its hold, and for a cap
//! that was lowered: then nothing more is leased until it fits again.

use crate::money::NanoUsd;

/// A block is this part of what is left: large far from the cap, small near it.
const BLOCK_PART: u64 = 8;

/// A block is worth at least so many of the holds that asked for it, while there is as much.
const BLOCK_HOLDS: u64 = 4;

/// One account's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vault {
    /// What attempts cost.
    pub settled: NanoUsd,
    /// Held by a node when it died; counts as spent until somebody says what became of it.
    pub in_doubt: NanoUsd,
    /// Given to nodes, and not settled yet.
    pub leased: NanoUsd,
}

impl Vault {
    /// Settled or in doubt.
    pub fn spent(&self) -> NanoUsd {
        self.settled.saturating_add(self.in_doubt)
    }

    /// What may still be leased.
    pub fn headroom(&self, cap: NanoUsd) -> NanoUsd {
        cap.saturating_sub(self.spent()).saturating_sub(self.leased)
    }

    /// Leases a block to a node that lacks so much for a hold; nothing, where nothing lacks, or where
    /// there is less than that.
    pub fn lease(&mut self, cap: NanoUsd, lacking: NanoUsd) -> NanoUsd {
        let headroom = self.headroom(cap);
        if lacking == NanoUsd::ZERO || lacking > headroom {
            return NanoUsd::ZERO;
        }
        let several = NanoUsd::from_nanos(lacking.nanos().saturating_mul(BLOCK_HOLDS));
        let part = NanoUsd::from_nanos(headroom.nanos() / BLOCK_PART);
        let block = several.max(part).min(headroom);
        self.leased = self.leased.saturating_add(block);
        block
    }

    /// Attempts cost so much; it comes out of the node's lease, of which `lease` is left. A sum beyond
    /// all measure stays there: no charge is ever turned down, or it would be tried for ever.
    pub fn settle(&mut self, lease: NanoUsd, charge: NanoUsd) {
        self.settled = self.settled.saturating_add(charge);
        self.leased = self.leased.saturating_sub(charge.min(lease));
    }

    /// A node gives a part of its lease back.
    pub fn give_back(&mut self, free: NanoUsd) {
        self.leased = self.leased.saturating_sub(free);
    }

    /// A node that had leased `lease` is gone, and `open` of it was held: that is in doubt, the rest is
    /// free again.
    pub fn orphan(&mut self, lease: NanoUsd, open: NanoUsd) {
        self.leased = self.leased.saturating_sub(lease);
        self.in_doubt = self.in_doubt.saturating_add(open);
    }

    /// Somebody says what became of a hold in doubt.
    pub fn resolve(&mut self, held: NanoUsd, charge: NanoUsd) {
        self.settled = self.settled.saturating_add(charge);
        self.in_doubt = self.in_doubt.saturating_sub(held);
    }
}
