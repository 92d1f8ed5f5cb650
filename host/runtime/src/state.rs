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
}

// === impl State ===

impl State {
    pub(crate) fn store(runtime: &Runtime, speaker: Arc<Speaker>) -> Store<State> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let state = State {
            memory: Memory { denied: false },
            cpu: Cpu { allowed: Duration::ZERO, since: None },
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
        state.cpu = Cpu { allowed: class.cpu_max(), since: None };
        state.log_messages_left = LOG_MESSAGES_PER_CALL;
        store.set_epoch_deadline(TICKS_PER_LOOK);
    }

    pub(crate) fn memory_denied(&self) -> bool {
        self.memory.denied
    }

    /// Asked at each tick: goes on while the call is inside its CPU time. Wall time would
    /// kill honest guests on a busy machine.
    fn look(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
        let cpu = &mut store.data_mut().cpu;
        let now = thread_cpu_time();
        let since = *cpu.since.get_or_insert(now);
        if now.saturating_sub(since) < cpu.allowed {
            return Ok(UpdateDeadline::Continue(TICKS_PER_LOOK));
        }
        Ok(UpdateDeadline::Interrupt)
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
