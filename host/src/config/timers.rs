//! How long anything may take: the timers of both sides, the breaker, retries and the drain.

use std::time::Duration;

use sluice_core::breaker;

use super::reader::{Found, Table};

/// Times that a target is asked again, where nothing is said.
pub(super) const DEFAULT_RETRIES: u32 = 1;

/// Times that a target may be asked again.
const RETRIES_MAX: u64 = 5;

/// From a request to the end of its answer, where nothing is said.
pub(super) const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// Failures, and probes, that a breaker can be set to.
const BREAKER_COUNT_MAX: u64 = 1000;

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientTimers {
    /// Until a request's head has arrived, counted from the connection or the answer before.
    pub(crate) head: Duration,
    /// Until its body has arrived.
    pub(crate) upload: Duration,
    /// Without taking a byte of what is ready for it.
    pub(crate) stalled_reader: Duration,
}

/// How long a vendor may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VendorTimers {
    /// Until a connection stands, TLS included.
    pub(crate) connect: Duration,
    headers: Option<Duration>,
    /// From sending to the first content of a stream.
    pub(crate) first_content: Duration,
    idle: Option<Duration>,
    /// From sending to the end of the answer, one attempt.
    pub(crate) total: Duration,
}

/// How a stop goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Between `/ready` saying so and the end of accepting.
    pub(crate) notice: Duration,
    /// Until what still runs is cut.
    pub(crate) deadline: Duration,
}

impl VendorTimers {
    /// A head of a whole answer comes when the model is done: only a bound that the operator has
    /// written counts for it.
    pub(crate) fn headers(&self, streaming: bool) -> Duration {
        self.headers.unwrap_or(if streaming { Duration::from_secs(30) } else { self.total })
    }

    /// Between two reads; for whole answers as with the head.
    pub(crate) fn idle(&self, streaming: bool) -> Duration {
        self.idle.unwrap_or(if streaming { Duration::from_secs(15) } else { self.total })
    }
}

impl Default for ClientTimers {
    fn default() -> ClientTimers {
        ClientTimers {
            head: Duration::from_secs(30),
            upload: Duration::from_secs(60),
            stalled_reader: Duration::from_secs(60),
        }
    }
}

impl Default for VendorTimers {
    fn default() -> VendorTimers {
        VendorTimers {
            connect: Duration::from_secs(2),
            headers: None,
            first_content: Duration::from_secs(30),
            idle: None,
            total: Duration::from_secs(600),
        }
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { notice: Duration::from_secs(1), deadline: Duration::from_secs(30) }
    }
}

pub(super) fn default_breaker() -> breaker::Limits {
    breaker::Limits { failures: 5, open_for: Duration::from_secs(60), probes: 3 }
}

pub(super) fn client_timers(table: &Table<'_>) -> ClientTimers {
    let mut timers = ClientTimers::default();
    set(table, "head", &mut timers.head);
    set(table, "upload", &mut timers.upload);
    set(table, "stalled_reader", &mut timers.stalled_reader);
    table.finish();
    timers
}

pub(super) fn vendor_timers(table: &Table<'_>) -> VendorTimers {
    let mut timers = VendorTimers::default();
    set(table, "connect", &mut timers.connect);
    timers.headers = table.get("headers").and_then(|found| found.duration());
    set(table, "first_content", &mut timers.first_content);
    timers.idle = table.get("idle").and_then(|found| found.duration());
    set(table, "total", &mut timers.total);
    table.finish();
    timers
}

pub(super) fn drain(table: &Table<'_>) -> Drain {
    let mut drain = Drain::default();
    set(table, "notice", &mut drain.notice);
    set(table, "deadline", &mut drain.deadline);
    table.finish();
    drain
}

pub(super) fn breaker(table: &Table<'_>) -> breaker::Limits {
    let mut limits = default_breaker();
    let count = |key| table.get(key).and_then(|found| small(&found, 1, BREAKER_COUNT_MAX));
    limits.failures = count("failures").unwrap_or(limits.failures);
    limits.probes = count("probes").unwrap_or(limits.probes);
    set(table, "open_for", &mut limits.open_for);
    table.finish();
    limits
}

/// `retries` and `deadline` of a model.
pub(super) fn of_model(table: &Table<'_>) -> (u32, Duration) {
    let retries = table.get("retries").and_then(|found| small(&found, 0, RETRIES_MAX));
    let deadline = table.get("deadline").and_then(|found| found.duration());
    (retries.unwrap_or(DEFAULT_RETRIES), deadline.unwrap_or(DEFAULT_DEADLINE))
}

fn small(found: &Found<'_>, least: u64, most: u64) -> Option<u32> {
    found.integer(least..=most).and_then(|number| u32::try_from(number).ok())
}

fn set(table: &Table<'_>, key: &'static str, span: &mut Duration) {
    if let Some(found) = table.get(key) {
        *span = found.duration().unwrap_or(*span);
    }
}
