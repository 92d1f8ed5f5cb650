//! Every bound on a plugin, with its reason.

use std::time::Duration;

/// Memory of one instance at most: 16 MiB. An adapter holds one request and one answer.
pub const MEMORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that one call may hand to the host: 24 MiB, above the largest body the host takes,
/// since a guest may replace a body; a list of aliased strings cannot multiply its memory.
pub(crate) const HANDED_OVER_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Component-model handles alive in one store.
pub(crate) const HANDLES_MAX: usize = 256;

/// Host resources that one store may hold: a call needs one.
pub(crate) const RESOURCES_MAX: usize = 64;

/// Entries of one table: function pointers of one program.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// How long an admission may wait for processors that rest.
pub(crate) const BACKGROUND_MAX: Duration = Duration::from_secs(2);

/// Native stack of guest calls: 512 KiB, under the 2 MiB of a worker's thread.
pub(crate) const STACK_BYTES_MAX: usize = 512 * 1024;

/// Linear memory kept in place between instances: 1 MiB with 64 KiB guest stacks makes a
/// fresh instance some three times cheaper than giving pages back.
pub(crate) const KEEP_RESIDENT_BYTES: usize = 1024 * 1024;

/// Freed slots kept warm for their module.
pub(crate) const WARM_SLOTS_MAX: u32 = 16;

/// Component instances alive at once: decoders of streams, adapters that live for one call on a
/// worker, policies as many as workers and models. Address space only, until they are used.
pub(crate) const INSTANCES_MAX: u32 = 2048;

/// Decoders of streams open at once; a stream beyond is refused, so that calls that live for
/// moments always find a place.
pub(crate) const MAPPERS_MAX: usize = 1536;

/// Core instances of one component: the module, its shims, and the encoder's fix-ups.
pub(crate) const CORE_INSTANCES_PER_COMPONENT: u32 = 4;

/// The engine's clock: how finely a call's CPU time is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Ticks after which a call is looked at.
pub(crate) const TICKS_PER_LOOK: u64 = 1;

/// Calls of a warm instance before it is replaced: leaks stay small.
pub(crate) const WARM_CALLS_MAX: u32 = 10_000;

/// Rest after which a warm instance is replaced.
pub(crate) const WARM_IDLE_MAX: Duration = Duration::from_secs(60);

/// Instances of one policy kept warm: no more can be in use than there are workers.
pub(crate) const WARM_INSTANCES_MAX: usize = 64;

/// Bytes of one log message; the rest is cut.
pub(crate) const LOG_MESSAGE_BYTES_MAX: usize = 1024;

/// Log messages of one call; the rest is counted.
pub(crate) const LOG_MESSAGES_PER_CALL: u32 = 16;

/// Bytes of what a guest says is wrong; the rest is cut. Clients and the log are told it.
pub(crate) const REFUSAL_BYTES_MAX: usize = 4 * 1024;

/// Bytes of jobs' texts that one call may read: a guest that copies all of them again and again
/// takes no more than this of the host's time.
pub(crate) const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pieces of an adapter's own answer.
pub(crate) const PIECES_MAX: usize = 64 * 1024;

/// Calls by what they may cost in CPU time. The count begins with the first tick inside the
/// call, so that a quick call reads no clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallClass {
    /// `rank`.
    Rank,
    /// `push` and `close`.
    Push,
    /// `plan` and `classify`.
    Plan,
    /// `decide`, with making the instance and `configure`.
    Decide,
    /// `whole`.
    Whole,
    /// Everything before a plugin serves: `describe`, `configure`, `self-test`.
    Trial,
}

impl CallClass {
    /// CPU time that a call of this class may use.
    pub fn cpu_max(self) -> Duration {
        Duration::from_millis(match self {
            CallClass::Rank => 5,
            CallClass::Push => 10,
            CallClass::Plan => 20,
            CallClass::Decide => 1000,
            CallClass::Whole => 50,
            CallClass::Trial => 250,
        })
    }
}
