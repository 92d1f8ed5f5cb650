//! Rates of models, upstreams and teams.

use std::num::{NonZeroU32, NonZeroU64};

use super::reader::Table;

/// A rate that any setting may name, a minute.
const PER_MINUTE_MAX: u64 = 1_000_000_000;

/// Requests at once that any setting may name.
const CONCURRENT_MAX: u64 = 1_000_000;

/// What may be taken a minute, and at once; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) requests_per_minute: Option<NonZeroU64>,
    pub(crate) tokens_per_minute: Option<NonZeroU64>,
    pub(crate) concurrent: Option<NonZeroU32>,
}

impl Limits {
    pub(crate) fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

/// The table `limits` of this one.
pub(super) fn limits(table: &Table<'_>) -> Limits {
    let Some(table) = table.table("limits") else { return Limits::default() };
    let number = |key, most| table.get(key).and_then(|found| found.integer(1..=most));
    let limits = Limits {
        requests_per_minute: number("requests_per_minute", PER_MINUTE_MAX).and_then(NonZeroU64::new),
        tokens_per_minute: number("tokens_per_minute", PER_MINUTE_MAX).and_then(NonZeroU64::new),
        concurrent: number("concurrent", CONCURRENT_MAX)
            .and_then(|most| u32::try_from(most).ok())
            .and_then(NonZeroU32::new),
    };
    table.finish();
    limits
}
