//! Who a request is from: all keys in memory. Never changed, only replaced as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::secret::{KeyId, Secrets, Shown};
use super::terms::{KeyBudget, Limits, Terms};
use super::{KeyRecord, Listed, Unreadable};

/// The keys of one moment.
#[derive(Debug, Default)]
pub struct Ring {
    slots: HashMap<KeyId, Slot>,
    generation: u64,
    unreadable: Vec<Unreadable>,
}

/// Who is identified: what the key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    /// The same as text, for whoever keeps it with each call.
    name_of_id: Arc<str>,
    team: Arc<str>,
    terms: Terms,
}

/// Why nobody is identified.
///
/// That a key was revoked or has expired is said only to who has its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stranger {
    /// It has not the form of a key.
    Malformed,
    /// There is no such key, or its secret is another. The outside is told the same as of
    /// [`Stranger::Malformed`].
    Unknown,
    /// The key was revoked.
    Revoked,
    /// The key's time is over.
    Expired,
}

#[derive(Debug)]
struct Slot {
    key: Arc<Key>,
    secrets: Secrets,
    revoked: bool,
}

impl Ring {
    /// Of all keys of this generation.
    pub fn new(listed: Listed, generation: u64) -> Ring {
        let slot = |record: KeyRecord| {
            let KeyRecord { id, terms, created_ms: _, revoked_ms, secrets } = record;
            let (name_of_id, team) = (id.as_str().into(), terms.team().unwrap_or_default().into());
            let key = Arc::new(Key { id, name_of_id, team, terms });
            (id, Slot { key, secrets, revoked: revoked_ms.is_some() })
        };
        Ring {
            slots: listed.records.into_iter().map(slot).collect(),
            generation,
            unreadable: listed.unreadable,
        }
    }

    /// Who shows this text. `now_ms` is in milliseconds since the Unix epoch.
    ///
    /// The same work is done for an id that is unknown as for one that is not.
    ///
    /// # Errors
    ///
    /// [`Stranger`].
    pub fn identify(&self, token: &str, now_ms: u64) -> Result<Arc<Key>, Stranger> {
        let shown = Shown::read(token).ok_or(Stranger::Malformed)?;
        let given = shown.digest();
        let slot = self.slots.get(&shown.id);
        let secrets = slot.map_or(&Secrets::NOBODY, |slot| &slot.secrets);
        let believed = secrets.believe(&given, now_ms);
        let slot = slot.filter(|_| believed).ok_or(Stranger::Unknown)?;
        if slot.revoked {
            return Err(Stranger::Revoked);
        }
        if slot.key.terms.has_expired(now_ms) {
            return Err(Stranger::Expired);
        }
        Ok(Arc::clone(&slot.key))
    }

    /// A key by its id, unless it is revoked or unknown; it may have expired.
    pub fn key(&self, id: &KeyId) -> Option<&Arc<Key>> {
        self.slots.get(id).filter(|slot| !slot.revoked).map(|slot| &slot.key)
    }

    /// Which acts are in it: those up to this generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many keys there are, also those that are revoked or have expired.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Rows of the database that are no keys, to be logged.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }
}

impl Key {
    /// What it is found by.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What it may do.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.terms.name()
    }

    /// Its id as a text that is cheap to share.
    pub fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.name_of_id)
    }

    /// Its team; empty without one.
    pub fn team(&self) -> &Arc<str> {
        &self.team
    }

    /// How fast it may go.
    pub fn limits(&self) -> Limits {
        self.terms.limits()
    }

    /// What it may spend.
    pub fn budgets(&self) -> &[KeyBudget] {
        self.terms.budgets()
    }

    /// As [`Terms::allows_model`].
    pub fn allows_model(&self, name: &str) -> bool {
        self.terms.allows_model(name)
    }

    /// As [`Terms::allows_address`].
    pub fn allows_address(&self, address: IpAddr) -> bool {
        self.terms.allows_address(address)
    }
}
