//! The one wasmtime engine: its settings, its pool of instances, and the clock that stops guests.
//!
//! Everything here is the same for all plugins; what differs stands in a call's store.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::Error;
use crate::bindings::Everything;
use crate::call::CallState;

/// How many calls may run at once; more wait for their turn.
const CALLS_AT_ONCE: u32 = 24;
/// The most linear memory that may be granted; the pool reserves address space for it, not memory.
pub(crate) const MOST_MEMORY: u64 = 1 << 30;
/// How often a running guest looks at the clock.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct EngineRoom {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<CallState>,
    pub(crate) turns: Arc<Semaphore>,
    ticker: Arc<Ticker>,
}

impl EngineRoom {
    pub(crate) fn new() -> Result<EngineRoom, Error> {
        let engine = start_engine()?;
        let mut linker = Linker::new(&engine);
        Everything::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)
            .map_err(|error| Error::Engine(format!("{error:#}")))?;
        Ok(EngineRoom {
            ticker: Ticker::start(engine.clone()),
            turns: Arc::new(Semaphore::new(CALLS_AT_ONCE as usize)),
            engine,
            linker,
        })
    }

    /// Time passes for guests as long as somebody holds this.
    pub(crate) fn run_clock(&self) -> Running {
        self.ticker.change(|ticks| ticks.calls += 1);
        Running(self.ticker.clone())
    }
}

impl Drop for EngineRoom {
    fn drop(&mut self) {
        self.ticker.change(|ticks| ticks.over = true);
    }
}

fn start_engine() -> Result<Engine, Error> {
    // Reserving address space for the pool fails under `ulimit -v` and in some sandboxes; then instances are made on demand,
    // which costs microseconds.
    let pooled = engine_config(Some(pool())).and_then(|config| Engine::new(&config));
    match pooled {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::debug!("plugins run without a pool of instances: {error:#}");
            engine_config(None)
                .and_then(|config| Engine::new(&config))
                .map_err(|error| Error::Engine(format!("{error:#}")))
        }
    }
}

/// The settings that compiled code depends on; one function, so that what was compiled can be loaded.
fn engine_config(pool: Option<PoolingAllocationConfig>) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        .concurrency_support(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false);
    // Compiled code is shared by machines whose processors differ: only what all of them have.
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    config.target("x86_64-unknown-linux-gnu")?;
    match pool {
        Some(pool) => {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
        // Where address space is scarce, bounds are checked in code instead of by 4 GiB of guard pages.
        None => {
            config
                .memory_reservation(16 << 20)
                .memory_reservation_for_growth(16 << 20)
                .memory_guard_size(64 << 10);
        }
    }
    Ok(config)
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(CALLS_AT_ONCE)
        .total_core_instances(CALLS_AT_ONCE * 32)
        .max_core_instances_per_component(32)
        .total_memories(CALLS_AT_ONCE * 2)
        .max_memories_per_component(2)
        .total_tables(CALLS_AT_ONCE * 8)
        .max_tables_per_component(8)
        .table_elements(crate::call::MOST_TABLE_ELEMENTS)
        .total_stacks(CALLS_AT_ONCE)
        .max_memory_size(MOST_MEMORY as usize)
        .linear_memory_keep_resident(64 << 10);
    pool
}

/// A thread that ticks while calls run and sleeps otherwise.
struct Ticker {
    ticks: Mutex<Ticks>,
    changed: Condvar,
}

#[derive(Default)]
struct Ticks {
    calls: usize,
    over: bool,
}

impl Ticker {
    fn start(engine: Engine) -> Arc<Ticker> {
        let ticker = Arc::new(Ticker {
            ticks: Mutex::default(),
            changed: Condvar::new(),
        });
        let shared = ticker.clone();
        let name = "plugin-clock".to_owned();
        let started = std::thread::Builder::new()
            .name(name)
            .spawn(move || shared.run(&engine));
        if let Err(error) = started {
            // Guests then never yield; the outer deadline cannot stop one that spins.
            tracing::error!("the plugin clock did not start: {error}");
        }
        ticker
    }

    fn run(&self, engine: &Engine) {
        let mut ticks = self.lock();
        while !ticks.over {
            if ticks.calls == 0 {
                ticks = self
                    .changed
                    .wait(ticks)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(ticks);
            std::thread::sleep(TICK);
            engine.increment_epoch();
            ticks = self.lock();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Ticks)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Ticks> {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|ticks| ticks.calls -= 1);
    }
}
