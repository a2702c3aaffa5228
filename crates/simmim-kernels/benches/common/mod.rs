//! What the benchmarks share: they time a kernel and its naive twin on reproducible numbers.
//!
//! `cargo bench -p simmim-kernels --bench rows -- layer_norm` times one kernel. As tests (`cargo test --benches`), all
//! of them run once.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use std::time::Duration;

/// The naive twin gets one of this many rows. It may be a thousand times slower, and times are reported per value.
const ROWS_OF_TWIN: usize = 64;

/// Numbers in `[-1, 1)` without an order that a kernel could profit from.
pub(crate) fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 2000) as f32 * 1e-3 - 1.0).collect()
}

/// Times a kernel on rows of `columns` values, and its naive twin on the first few of them.
///
/// `run` gets a fresh copy of the rows each time, made outside of the measurement. So a kernel that works in place
/// starts from the same numbers each time.
pub(crate) fn bench_with_naive<K: Copy, T: Copy, R>(
    c: &mut Criterion,
    name: &str,
    [fast, naive]: [K; 2],
    rows: &[T],
    columns: usize,
    mut run: impl FnMut(K, &mut [T]) -> R,
) {
    let count = rows.len() / columns;
    let mut group = c.benchmark_group(name);
    // many kernels, each short: a tenth of criterion's usual times
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for (twin, kernel, count) in [("fast", fast, count), ("naive", naive, count.div_ceil(ROWS_OF_TWIN))] {
        let rows = &rows[..count * columns];
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(BenchmarkId::new(twin, format!("{count}x{columns}")), |bench| {
            bench.iter_batched_ref(|| rows.to_vec(), |rows| run(kernel, rows), BatchSize::PerIteration);
        });
    }
    group.finish();
}
