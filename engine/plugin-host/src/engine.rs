//! The wasmtime engine: one configuration for compiling and for running.
//!
//! Invariant: everything that could make a replay differ is off: no WASI, no threads, NaNs made canonical, relaxed SIMD
//! deterministic, fuel exact. `keep_resident` pays only together with `pagemap_scan` (Linux 6.7): a fresh instance of a small
//! component then costs 6 µs, 10 µs with neither, and 17 µs with the first alone.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

/// Sizes of the pool that instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Component instances at once: calls under way and warm instances kept.
    pub instances: u32,
    /// Largest linear memory that any binding may be given, MiB.
    pub memory_mib: u32,
    /// Bytes of each memory that stay resident between calls, KiB.
    pub keep_resident_kib: u32,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            instances: 256,
            memory_mib: 64,
            keep_resident_kib: 1024,
        }
    }
}

/// Core instances and memories of one component: componentize-py makes 38, the QuickJS one 13 with 3 memories.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
/// StarlingMonkey has 7697 elements in one table.
pub(crate) const TABLE_ELEMENTS: u32 = 20_000;

/// The engine could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the WebAssembly engine could not be made: {message}")]
pub struct EngineError {
    /// Why, as wasmtime says it.
    pub message: String,
}

/// What compiling and running must agree about.
fn common() -> Config {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .concurrency_support(false)
        .consume_fuel(true)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(512 * 1024)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

/// An engine that compiles: no pool, so that a child under a limit of address space can have one.
pub(crate) fn compiling() -> Result<Engine, EngineError> {
    engine(&common())
}

/// Where instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// A pool: 6 µs for an instance of a small component.
    Pooled,
    /// One by one, because the address space has no room for a pool: 15 µs.
    OnDemand,
}

/// An engine that runs, and how its instances are made.
pub(crate) fn running(options: PoolOptions) -> Result<(Engine, Allocation), EngineError> {
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    match engine(&config) {
        Ok(engine) => Ok((engine, Allocation::Pooled)),
        // Each memory reserves 6 GiB of address space, which a 39-bit one does not have.
        Err(_) => Ok((compiling()?, Allocation::OnDemand)),
    }
}

fn engine(config: &Config) -> Result<Engine, EngineError> {
    Engine::new(config).map_err(|error| EngineError {
        message: format!("{error:#}"),
    })
}

fn pool(options: PoolOptions) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(options.instances)
        .total_core_instances(options.instances.saturating_mul(32))
        .total_memories(options.instances.saturating_mul(2))
        .total_tables(options.instances.saturating_mul(16))
        .max_memory_size((options.memory_mib as usize) << 20)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(CORE_INSTANCES)
        .table_elements(TABLE_ELEMENTS as usize)
        .linear_memory_keep_resident((options.keep_resident_kib as usize) << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(64);
    pool
}
