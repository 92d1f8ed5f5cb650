//! The engine that all plugins share, its clock, and how code gets into it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use wasmtime::component::Component;
use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use crate::admission::Patience;
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
    cache: Option<Cache>,
    patience: Patience,
    /// Instances that live as long as a stream, and are open now.
    mappers: Arc<AtomicUsize>,
}

/// How fast a plugin is to be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// On all processors: nothing is served yet.
    Start,
    /// On one thread, and only while nobody else wants its processor: requests come first.
    Serving,
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
    /// Starts the engine. Its clock ends with the last clone. `cache` is a folder that only this
    /// user can write to: what is compiled is kept there, and trusted when it is found again.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`], where the machine cannot run the engine.
    pub fn new(cache: Option<&Path>) -> Result<Runtime, RuntimeError> {
        let cache = cache.and_then(open_cache);
        let engine = match Engine::new(&config(Some(pool()), cache.as_ref(), Pace::Serving)) {
            Ok(engine) => engine,
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(reason, "no address space for pooled instances; making each on demand");
                Engine::new(&config(None, cache.as_ref(), Pace::Serving)).map_err(RuntimeError::Engine)?
            }
        };
        start_clock(&engine)?;
        let linkers = Linkers::new(&engine)?;
        Ok(Runtime(Arc::new(Inner {
            engine,
            linkers,
            cache,
            patience: Patience::default(),
            mappers: Arc::default(),
        })))
    }

    /// Compiles in an engine that is thrown away, so that the serving one retains nothing of it
    /// and loads the result from the cache.
    pub(crate) fn compile(&self, bytes: &[u8], pace: Pace) -> wasmtime::Result<Component> {
        if let Some(cache) = &self.0.cache {
            let compiler = Engine::new(&config(None, Some(cache), pace))?;
            Component::new(&compiler, bytes)?;
        }
        Component::new(self.engine(), bytes)
    }

    /// Components that were found compiled, and those that were not.
    pub fn cache_hits_and_misses(&self) -> (usize, usize) {
        self.0.cache.as_ref().map_or((0, 0), |cache| (cache.cache_hits(), cache.cache_misses()))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.0.patience
    }

    pub(crate) fn mappers(&self) -> &Arc<AtomicUsize> {
        &self.0.mappers
    }

    pub(crate) fn linkers(&self) -> &Linkers {
        &self.0.linkers
    }
}

/// What decides the compiled code is the same for all engines: it is the key in the cache.
fn config(pool: Option<PoolingAllocationConfig>, cache: Option<&Cache>, pace: Pace) -> Config {
    let mut config = Config::new();
    config.cache(cache.cloned()).parallel_compilation(pace == Pace::Start);
    config.epoch_interruption(true).max_wasm_stack(STACK_BYTES_MAX).wasm_backtrace_max_frames(None);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Without a cache, plugins are compiled at each start.
fn open_cache(folder: &Path) -> Option<Cache> {
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    match Cache::new(config) {
        Ok(cache) => Some(cache),
        Err(error) => {
            let reason = format!("{error:#}");
            tracing::warn!(folder = %folder.display(), reason, "no cache of compiled plugins");
            None
        }
    }
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
