//! What is counted of a stream while it is read: what goes to the client, what an adapter says that it
//! used, and what the vendor itself has said of it.

use sluice_core::meter::{Meter, Overheard, is_usage_only};
use sluice_core::price::Usage;
use sluice_core::settle::Floor;
use sluice_core::sse::{Event, Splitter};
use sluice_runtime::Mapped;

/// One stream's counts.
#[derive(Default)]
pub(crate) struct Metering {
    meter: Meter,
    /// By the adapter's words.
    usage: Option<Usage>,
    /// By the vendor's own, which an adapter translates.
    overheard: Overheard,
    /// All events are counted; else only the vendor's usage is looked for.
    counts_all: bool,
    /// The host has asked for the usage: the client is not to see it.
    hides_usage: bool,
    /// Of what an adapter has made.
    splitter: Splitter,
}

/// What an answer has used by now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Metered {
    /// By the vendor's or the adapter's words.
    pub(crate) usage: Option<Usage>,
    /// Tokens of output that were delivered, at least.
    pub(crate) delivered: u64,
    /// By the vendor's own words beside an adapter's, at least.
    pub(crate) overheard: Floor,
    /// The vendor has begun to answer: what it calls an error now, it may charge for.
    pub(crate) begun: bool,
    /// An adapter has called the answer complete while the vendor was still talking.
    pub(crate) cut: bool,
}

impl Metering {
    /// `counts_all`: money or a limit depends on what is delivered. `hides_usage`: the client has not asked for it.
    pub(crate) fn new(counts_all: bool, hides_usage: bool) -> Metering {
        Metering { counts_all, hides_usage, ..Metering::default() }
    }

    pub(crate) fn counts_all(&self) -> bool {
        self.counts_all
    }

    /// An event in the client's wire.
    pub(crate) fn event(&mut self, data: &[u8]) {
        const USAGE: &[u8] = b"\"usage\"";
        if self.counts_all || memchr::memmem::find(data, USAGE).is_some() {
            self.meter.event(data);
        }
    }

    pub(crate) fn hides(&self, event: &Event) -> bool {
        self.hides_usage && event.data().is_some_and(|data| is_usage_only(&data))
    }

    /// An event in the vendor's wire, which an adapter is shown too.
    pub(crate) fn hears(&mut self, data: &[u8]) {
        if self.counts_all {
            self.overheard.hear(data);
        }
    }

    /// What an adapter has made is in the client's wire.
    pub(crate) fn mapped(&mut self, mapped: &Mapped) {
        self.usage = mapped.usage.or(self.usage);
        if !self.counts_all {
            return;
        }
        self.splitter.push(&mapped.wire);
        // What is too long to be an event is counted when it has passed, by nobody.
        while let Ok(Some(event)) = self.splitter.next_event() {
            if let Some(data) = event.data() {
                self.meter.event(&data);
            }
        }
    }

    pub(crate) fn used(&self) -> Metered {
        Metered { overheard: self.overheard.floor(), ..Metered::of(&self.meter, self.usage) }
    }
}

impl Metered {
    /// `mapped`: what the adapter says, where there is one that does.
    pub(crate) fn of(meter: &Meter, mapped: Option<Usage>) -> Metered {
        Metered {
            usage: mapped.or_else(|| meter.usage()),
            delivered: meter.floor_tokens(),
            ..Metered::default()
        }
    }

    /// Tokens that were used at the least, whatever the usage says.
    pub(crate) fn floor(&self) -> Floor {
        Floor { input: self.overheard.input, output: self.overheard.output.max(self.delivered) }
    }
}
