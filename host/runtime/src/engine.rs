//! The engine that all plugins share, and its clock.

use std::sync::Arc;
use std::thread;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bounds::{
    CORE_INSTANCES_PER_COMPONENT, INSTANCES_MAX, KEEP_RESIDENT_BYTES, MEMORY_BYTES_MAX, STACK_BYTES_MAX,
    TABLE_ELEMENTS_MAX, TICK, WARM_SLOTS_MAX,
};
use crate::linkers::Linkers;

/// The engine with its linkers and its clock; cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    engine: Engine,
    linkers: Linkers,
}

/// Why plugins cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("starting the WebAssembly engine")]
    Engine(#[source] wasmtime::Error),
    #[error("linking the host's services")]
    Linking(#[source] wasmtime::Error),
    #[error("starting the engine's clock")]
    Clock(#[source] std::io::Error),
}

impl Runtime {
    /// Starts the engine. Its clock ends with the last clone.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`], where the machine cannot run the engine.
    pub fn new() -> Result<Runtime, RuntimeError> {
        let engine = match Engine::new(&config(Some(pool()))) {
            Ok(engine) => engine,
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(reason, "no address space for pooled instances; making each on demand");
                Engine::new(&config(None)).map_err(RuntimeError::Engine)?
            }
        };
        start_clock(&engine)?;
        let linkers = Linkers::new(&engine)?;
        Ok(Runtime(Arc::new(Inner { engine, linkers })))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn linkers(&self) -> &Linkers {
        &self.0.linkers
    }
}

fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).max_wasm_stack(STACK_BYTES_MAX).wasm_backtrace_max_frames(None);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES_MAX)
        .total_core_instances(INSTANCES_MAX * CORE_INSTANCES_PER_COMPONENT)
        .total_memories(INSTANCES_MAX)
        .total_tables(INSTANCES_MAX * 2)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_ELEMENTS_MAX)
        // Costs more than it saves where memories are small (wasmtime #14357).
        .pagemap_scan(Enabled::No);
    pool
}

/// One thread moves the epoch on until the engine is gone.
fn start_clock(engine: &Engine) -> Result<(), RuntimeError> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            #[allow(clippy::disallowed_methods, reason = "the engine's clock is a thread that sleeps")]
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("plugin-clock".into()).spawn(tick).map_err(RuntimeError::Clock)?;
    Ok(())
}
