//! What the operator says of a key: its name, models, addresses, limits and budgets, checked.

use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroU64};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use sluice_core::money::NanoUsd;
use sluice_core::pattern::Pattern;
use sluice_core::window::Window;

/// Characters of a name or a team at most: it is shown in tables.
const NAME_CHARS_MAX: usize = 64;

/// Entries of a list at most: each request looks at all of them.
const ENTRIES_MAX: usize = 256;

/// Bytes of a pattern at most; names of models are far shorter.
const PATTERN_BYTES_MAX: usize = 256;

/// What is written of a key. As text, so that it can be read from JSON; [`Terms::check`] makes it hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// One to 64 letters, digits, spaces or any of `-_.@`. Of the keys that are not revoked, one has it.
    pub name: String,
    /// Likewise; none: it belongs to no team.
    #[serde(default)]
    pub team: Option<String>,
    /// Patterns of the models that it may ask for; no entries: all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Addresses and ranges that it may come from, such as `10.0.0.0/8`; no entries: all.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// From when on it does not work, in milliseconds since the Unix epoch; none: it does not expire.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Requests of a minute, one at least; none: any number.
    #[serde(default)]
    pub requests_per_minute: Option<u64>,
    /// Tokens of a minute, likewise.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time, likewise.
    #[serde(default)]
    pub concurrent: Option<u32>,
    /// What it may spend.
    #[serde(default)]
    pub budgets: Vec<BudgetDraft>,
}

/// What is written of one budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetDraft {
    /// For each window; a dollar amount such as `"0.05"` in JSON.
    #[serde(with = "dollars")]
    pub cap: NanoUsd,
    /// `day`, `month` or `total`.
    pub window: String,
    /// The IANA name of the zone whose days or months they are; none: UTC's.
    #[serde(default)]
    pub zone: Option<String>,
}

/// What a key may do. To have it is to know that it is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    name: String,
    team: Option<String>,
    models: Vec<Pattern>,
    addresses: Vec<IpNet>,
    expires_ms: Option<u64>,
    limits: Limits,
    budgets: Vec<KeyBudget>,
}

/// How fast it may go; none: as fast as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests of a minute.
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens of a minute.
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Requests at the same time.
    pub concurrent: Option<NonZeroU32>,
}

/// What it may spend in each window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBudget {
    /// In each.
    pub cap: NanoUsd,
    /// Which.
    pub window: Window,
}

/// Why terms cannot be kept. Entries are counted from one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTerms {
    /// The name or the team.
    #[error("{field}: wanted 1 to {NAME_CHARS_MAX} letters, digits, spaces or any of -_.@")]
    Name {
        /// `name` or `team`.
        field: &'static str,
    },
    /// An entry without a character. It does not mean all: no entries do.
    #[error("{list}: entry {entry} is blank; leave the list out to allow all")]
    Blank {
        /// `models` or `addresses`.
        list: &'static str,
        /// Which.
        entry: usize,
    },
    /// A list is too long to be looked through for each request.
    #[error("{list}: wanted at most {ENTRIES_MAX} entries")]
    TooMany {
        /// `models`, `addresses` or `budgets`.
        list: &'static str,
    },
    /// A pattern is longer than any model's name.
    #[error("models: entry {entry} has more than {PATTERN_BYTES_MAX} bytes")]
    Pattern {
        /// Which.
        entry: usize,
    },
    /// No address and no range.
    #[error("addresses: entry {entry}: wanted an address or a range such as 10.0.0.0/8, not {text:?}")]
    Address {
        /// Which.
        entry: usize,
        /// What is there.
        text: String,
    },
    /// It would never work.
    #[error("expires_ms: the key expires before it is made")]
    Expired,
    /// Nothing would pass.
    #[error("{limit}: wanted 1 or more, or none to set no limit")]
    Zero {
        /// Which.
        limit: &'static str,
    },
    /// More than anybody has.
    #[error("budgets: entry {entry}: cap: wanted {} dollars at most", NanoUsd::CAP_MAX)]
    Cap {
        /// Which.
        entry: usize,
    },
    /// No window.
    #[error("budgets: entry {entry}: window: wanted day, month or total, not {text:?}")]
    Window {
        /// Which.
        entry: usize,
        /// What is there.
        text: String,
    },
    /// No zone, or one where none belongs.
    #[error(
        "budgets: entry {entry}: zone: wanted the IANA name of a time zone for a day or a month, not {text:?}"
    )]
    Zone {
        /// Which.
        entry: usize,
        /// What is there.
        text: String,
    },
    /// The same window again: the smaller cap would hide the larger.
    #[error("budgets: entry {entry} has the window of another")]
    Twice {
        /// Which.
        entry: usize,
    },
}

impl Terms {
    /// Checks what was written for a key that is made at this instant.
    ///
    /// # Errors
    ///
    /// [`BadTerms`]: the first that is found.
    pub fn check(draft: &Draft, created_ms: u64) -> Result<Terms, BadTerms> {
        if draft.expires_ms.is_some_and(|expires_ms| expires_ms <= created_ms) {
            return Err(BadTerms::Expired);
        }
        Ok(Terms {
            name: checked_name("name", &draft.name)?,
            team: draft.team.as_deref().map(|team| checked_name("team", team)).transpose()?,
            models: entries("models", &draft.models, pattern)?,
            addresses: entries("addresses", &draft.addresses, network)?,
            expires_ms: draft.expires_ms,
            limits: Limits::check(draft)?,
            budgets: budgets(&draft.budgets)?,
        })
    }

    /// As it would be written.
    pub fn draft(&self) -> Draft {
        let budgets = self.budgets.iter().map(|budget| {
            let (window, zone) = match &budget.window {
                Window::Day(zone) => ("day", Some(zone.to_string())),
                Window::Month(zone) => ("month", Some(zone.to_string())),
                Window::Total => ("total", None),
            };
            BudgetDraft { cap: budget.cap, window: window.to_owned(), zone }
        });
        Draft {
            name: self.name.clone(),
            team: self.team.clone(),
            models: self.models.iter().map(|model| model.as_str().to_owned()).collect(),
            addresses: self.addresses.iter().map(IpNet::to_string).collect(),
            expires_ms: self.expires_ms,
            requests_per_minute: self.limits.requests_per_minute.map(NonZeroU64::get),
            tokens_per_minute: self.limits.tokens_per_minute.map(NonZeroU64::get),
            concurrent: self.limits.concurrent.map(NonZeroU32::get),
            budgets: budgets.collect(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its team.
    pub fn team(&self) -> Option<&str> {
        self.team.as_deref()
    }

    /// What it may ask for; empty: all. To ask: [`Terms::allows_model`].
    pub fn models(&self) -> &[Pattern] {
        &self.models
    }

    /// Where it may come from; empty: anywhere. To ask: [`Terms::allows_address`].
    pub fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// From when on it does not work, in milliseconds since the Unix epoch.
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// How fast it may go.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it may spend; empty: no budget of its own.
    pub fn budgets(&self) -> &[KeyBudget] {
        &self.budgets
    }

    /// Whether it may ask for this model.
    pub fn allows_model(&self, name: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|model| model.matches(name))
    }

    /// Whether it may come from this address. An IPv4 address in the form of IPv6 is that IPv4
    /// address, and in no range of IPv6.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.is_empty() || self.addresses.iter().any(|range| range.contains(&address))
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

impl Limits {
    fn check(draft: &Draft) -> Result<Limits, BadTerms> {
        let zero = |limit| BadTerms::Zero { limit };
        let checked = |limit, value: Option<u64>| -> Result<Option<NonZeroU64>, BadTerms> {
            value.map(|value| NonZeroU64::new(value).ok_or(zero(limit))).transpose()
        };
        let concurrent = draft.concurrent.map(|value| NonZeroU32::new(value).ok_or(zero("concurrent")));
        Ok(Limits {
            requests_per_minute: checked("requests_per_minute", draft.requests_per_minute)?,
            tokens_per_minute: checked("tokens_per_minute", draft.tokens_per_minute)?,
            concurrent: concurrent.transpose()?,
        })
    }
}

/// Without the spaces around it: names that look the same are the same.
fn checked_name(field: &'static str, text: &str) -> Result<String, BadTerms> {
    let name = text.trim();
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@ ".contains(&byte));
    if plain && (1..=NAME_CHARS_MAX).contains(&name.len()) {
        Ok(name.to_owned())
    } else {
        Err(BadTerms::Name { field })
    }
}

/// The entries of a list, trimmed and checked. A blank one fails: were it dropped, a list of it alone
/// would allow all.
fn entries<T>(
    list: &'static str,
    texts: &[String],
    check: impl Fn(usize, &str) -> Result<T, BadTerms>,
) -> Result<Vec<T>, BadTerms> {
    if texts.len() > ENTRIES_MAX {
        return Err(BadTerms::TooMany { list });
    }
    let checked = texts.iter().zip(1..).map(|(text, entry)| match text.trim() {
        "" => Err(BadTerms::Blank { list, entry }),
        text => check(entry, text),
    });
    checked.collect()
}

fn pattern(entry: usize, text: &str) -> Result<Pattern, BadTerms> {
    if text.len() > PATTERN_BYTES_MAX { Err(BadTerms::Pattern { entry }) } else { Ok(Pattern::new(text)) }
}

fn network(entry: usize, text: &str) -> Result<IpNet, BadTerms> {
    let single = || text.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
    let range = text.parse().map(|range: IpNet| canonical(range.trunc()));
    range.or_else(|_| single()).map_err(|_| BadTerms::Address { entry, text: text.to_owned() })
}

/// A range of IPv4 addresses in the form of IPv6 is that range of IPv4.
fn canonical(range: IpNet) -> IpNet {
    /// Bits before the IPv4 address.
    const MAPPED_BITS: u8 = 96;
    let mapped = match range {
        IpNet::V4(_) => None,
        IpNet::V6(range) => range.prefix_len().checked_sub(MAPPED_BITS).and_then(|bits| {
            let address = Ipv6Addr::to_ipv4_mapped(&range.network())?;
            Ipv4Net::new(address, bits).ok()
        }),
    };
    mapped.map_or(range, IpNet::V4)
}

fn budgets(drafts: &[BudgetDraft]) -> Result<Vec<KeyBudget>, BadTerms> {
    if drafts.len() > ENTRIES_MAX {
        return Err(BadTerms::TooMany { list: "budgets" });
    }
    let mut budgets: Vec<KeyBudget> = Vec::with_capacity(drafts.len());
    for (draft, entry) in drafts.iter().zip(1..) {
        let window = window(draft, entry)?;
        if budgets.iter().any(|budget| budget.window == window) {
            return Err(BadTerms::Twice { entry });
        }
        if draft.cap > NanoUsd::CAP_MAX {
            return Err(BadTerms::Cap { entry });
        }
        budgets.push(KeyBudget { cap: draft.cap, window });
    }
    Ok(budgets)
}

fn window(draft: &BudgetDraft, entry: usize) -> Result<Window, BadTerms> {
    let zone = || {
        let text = draft.zone.as_deref().unwrap_or("UTC");
        text.trim().parse().map_err(|_| BadTerms::Zone { entry, text: text.to_owned() })
    };
    match (draft.window.as_str(), &draft.zone) {
        ("day", _) => Ok(Window::Day(zone()?)),
        ("month", _) => Ok(Window::Month(zone()?)),
        ("total", None) => Ok(Window::Total),
        ("total", Some(zone)) => Err(BadTerms::Zone { entry, text: zone.clone() }),
        (text, _) => Err(BadTerms::Window { entry, text: text.to_owned() }),
    }
}

/// Amounts as dollar texts: a number in JSON may become a float on its way.
mod dollars {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use sluice_core::money::NanoUsd;

    pub(super) fn serialize<S: Serializer>(amount: &NanoUsd, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(amount)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NanoUsd, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
