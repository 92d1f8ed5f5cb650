//! What a store holds besides the guest: its bounds, what it was shown, what it has said.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};

use crate::bounds::{
    CallClass, HANDED_OVER_BYTES_MAX, HANDLES_MAX, LOG_MESSAGES_PER_CALL, MEMORY_BYTES_MAX, RESOURCES_MAX,
    TABLE_ELEMENTS_MAX, TICKS_PER_LOOK,
};
use crate::counters::Counters;
use crate::engine::Runtime;
use crate::inbound::Inbound;

/// One store's data.
pub(crate) struct State {
    memory: Memory,
    cpu: Cpu,
    pub(crate) table: ResourceTable,
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) log_messages_left: u32,
    pub(crate) inbound: Option<Arc<dyn Inbound>>,
    /// An accessor beyond `shape` was used: the plan is for this request alone.
    pub(crate) looked_closer: bool,
    pub(crate) texts: Texts,
}

/// The texts of the jobs that are shown.
#[derive(Default)]
pub(crate) struct Texts {
    pub(crate) by_job: Vec<Arc<str>>,
    pub(crate) bytes_read: usize,
}

/// In whose name a store logs and counts.
pub(crate) struct Speaker {
    pub(crate) id: String,
    pub(crate) counters: Counters,
}

struct Memory {
    /// A growth was refused: a trap that follows is a matter of memory.
    denied: bool,
}

/// CPU time of the call under way.
struct Cpu {
    allowed: Duration,
    /// The thread's CPU clock at the first tick inside the call.
    since: Option<Duration>,
    /// The look before this one found it used up.
    over: bool,
}

// === impl State ===

impl State {
    pub(crate) fn store(runtime: &Runtime, speaker: Arc<Speaker>) -> Store<State> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let state = State {
            memory: Memory { denied: false },
            cpu: Cpu { allowed: Duration::ZERO, since: None, over: false },
            table,
            speaker,
            log_messages_left: LOG_MESSAGES_PER_CALL,
            inbound: None,
            looked_closer: false,
            texts: Texts::default(),
        };
        let mut store = Store::new(runtime.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HANDED_OVER_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        store.epoch_deadline_callback(State::look);
        store
    }

    /// Before each call, and before instantiating.
    pub(crate) fn begin(store: &mut Store<State>, class: CallClass) {
        let state = store.data_mut();
        state.cpu = Cpu { allowed: class.cpu_max(), since: None, over: false };
        state.log_messages_left = LOG_MESSAGES_PER_CALL;
        store.set_epoch_deadline(TICKS_PER_LOOK);
    }

    pub(crate) fn memory_denied(&self) -> bool {
        self.memory.denied
    }

    /// Asked at each tick.
    fn look(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
        Ok(match store.data_mut().cpu.is_used_up(thread_cpu_time()) {
            true => UpdateDeadline::Interrupt,
            false => UpdateDeadline::Continue(TICKS_PER_LOOK),
        })
    }
}

// === impl Cpu ===

impl Cpu {
    /// Whether a call ends at this look: the second one that finds its CPU time used up. Wall time would
    /// kill honest guests on a busy machine; and where a virtual machine stands still, the clock of CPU
    /// time may go on, so that one look alone says little.
    fn is_used_up(&mut self, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let over = now.saturating_sub(since) >= self.allowed;
        std::mem::replace(&mut self.over, over) && over
    }
}

pub(crate) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= MEMORY_BYTES_MAX;
        self.denied |= !allowed;
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= TABLE_ELEMENTS_MAX;
        self.denied |= !allowed;
        Ok(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_end_a_call_and_one_that_came_late_does_not() {
        let ends = |looks: &[u64]| {
            let mut cpu = Cpu { allowed: Duration::from_millis(10), since: None, over: false };
            looks.iter().position(|at| cpu.is_used_up(Duration::from_millis(*at)))
        };
        assert_eq!(ends(&[1000, 1005, 1009]), None);
        assert_eq!(ends(&[1000, 1005, 1010, 1015]), Some(3));
        // The machine stood still once.
        assert_eq!(ends(&[1000, 1800]), None);
        assert_eq!(ends(&[1000, 1800, 1801]), Some(2));
    }
}
