//! The product `C = A·B` on packed panels of `B`: the one kernel most of a training step runs in.
//!
//! A tile of `C` stays in registers while the whole depth `K` passes by. For each `k`, one row of a
//! panel of `B` is loaded (`WIDTH` values, contiguous) and multiplied by one value from each row of
//! `A`. `A` is read where it lies: no packing if its rows are contiguous.
//!
//! ```text
//!                     panel of B, packed (pack.rs)
//!                    k=0  [ b b b … b ]  WIDTH values
//!                    k=1  [ b b b … b ]
//!                     …
//!  A   row 0  a a a …     [ c c c … c ]
//!      row 1  a a a …     [ c c c … c ]  ← HEIGHT × WIDTH sums in registers
//!       …                       …
//! ```
//!
//! | instructions | tile | registers |
//! | --- | --- | --- |
//! | AVX2 with FMA | 6 × 16 | 12 of 16 hold sums |
//! | AVX-512 | 12 × 32 | 24 of 32 |
//! | others | 6 × 16 | NEON: 24 of 32 |
//!
//! The tile is plain arithmetic on arrays; compiled with these instructions enabled, the arrays are
//! registers. Measurements are in `docs/LOG.md`.

use crate::matrix::Matrix;
use std::ops::Range;

/// What a product starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start<'a> {
    /// `C = A·B`: the old values are not read.
    Zero,
    /// `C += A·B`.
    Old,
    /// `C = A·B + bias`, one value per column.
    Bias(&'a [f32]),
}

/// Tile sizes and instructions for the CPU at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile(Kind);

/// Only [`Tile::detect`] makes one that needs instructions, so having it proves that they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Tile {
    /// The best tile this CPU can run.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            if has_avx2 && has_avx512 {
                return Tile(Kind::Avx512);
            }
            if has_avx2 {
                return Tile(Kind::Avx2);
            }
        }
        Self::portable()
    }

    /// The tile that runs on any CPU.
    pub fn portable() -> Self {
        Tile(Kind::Portable)
    }

    /// Columns of a panel of `B`.
    pub fn width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 32,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 16,
            Kind::Portable => 16,
        }
    }

    /// Rows of a block of `A`, where `A` has to be packed.
    pub fn height(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 12,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 6,
            Kind::Portable => 6,
        }
    }
}

/// Rows of `A` for a product: where element `(i, k)` lies.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Contiguous rows, read where they lie.
    InPlace(Matrix<'a>),
    /// Blocks of [`Tile::height`] rows, packed.
    Packed {
        /// The blocks, see [`pack`](crate::pack).
        blocks: &'a [f32],
        /// Number of rows, without the filling.
        rows: usize,
        /// Depth that the blocks were packed with.
        depth: usize,
    },
}

impl Rows<'_> {
    fn count(&self) -> usize {
        match self {
            Rows::InPlace(a) => a.rows(),
            Rows::Packed { rows, .. } => *rows,
        }
    }
}

/// `C = start + A[:, depth]·B[depth, :]`, where `depth` is a range of the inner dimension.
///
/// # Shapes
/// `A` `[M, K]`; `panels` of `B` `[K, N]` packed for this `tile`; `c` row-major `[M, N]`, rows `c_stride`
/// apart.
///
/// # Panics
/// If a slice is shorter than its shape.
pub fn product(
    tile: Tile,
    a: Rows,
    panels: &[f32],
    full_depth: usize,
    depth: Range<usize>,
    columns: usize,
    c: &mut [f32],
    c_stride: usize,
    start: Start,
) {
    let rows = a.count();
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(depth.start <= depth.end && depth.end <= full_depth, "depth {depth:?} of {full_depth}");
    assert!(panels.len() >= crate::pack::packed_len(full_depth, columns, tile.width()), "panels are too short");
    assert!(c.len() >= (rows - 1) * c_stride + columns && c_stride >= columns, "the result is too short");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), columns, "one bias per column");
    }
    match a {
        Rows::InPlace(a) => assert!(a.columns() == full_depth && a.column_stride() == 1, "rows must be contiguous"),
        Rows::Packed { blocks, rows, depth } => {
            assert!(depth == full_depth && blocks.len() >= crate::pack::packed_len(depth, rows, tile.height()));
        }
    }
    let job =
        Job { a, block_height: tile.height(), panels, full_depth, depth, columns, c: c.as_mut_ptr(), c_stride, start };
    match tile.0 {
        // SAFETY: the lengths were checked above, and such a tile exists only where the CPU has the
        // instructions.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { avx512(&job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { avx2(&job) },
        // SAFETY: the lengths were checked above.
        Kind::Portable => unsafe { portable(&job) },
    }
}

/// Specification of [`product`], on unpacked operands.
pub fn product_naive(a: Matrix, b: Matrix, depth: Range<usize>, c: &mut [f32], c_stride: usize, start: Start) {
    for i in 0..a.rows() {
        for j in 0..b.columns() {
            let sum: f64 = depth.clone().map(|k| a.at(i, k) as f64 * b.at(k, j) as f64).sum();
            let old = match start {
                Start::Zero => 0.0,
                Start::Old => c[i * c_stride + j],
                Start::Bias(bias) => bias[j],
            };
            c[i * c_stride + j] = old + sum as f32;
        }
    }
}

struct Job<'a> {
    a: Rows<'a>,
    block_height: usize,
    panels: &'a [f32],
    full_depth: usize,
    depth: Range<usize>,
    columns: usize,
    c: *mut f32,
    c_stride: usize,
    start: Start<'a>,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
unsafe fn avx512(job: &Job) {
    // SAFETY: the caller checked the lengths.
    unsafe { job.run::<12, 32, true>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(job: &Job) {
    // SAFETY: the caller checked the lengths.
    unsafe { job.run::<6, 16, true>() }
}

unsafe fn portable(job: &Job) {
    // without FMA instructions a fused multiplication is a function call
    const FUSED: bool = cfg!(target_arch = "aarch64");
    // SAFETY: the caller checked the lengths.
    unsafe { job.run::<6, 16, FUSED>() }
}

/// Values of `A` in a chunk of rows: 192 KiB, less than half of the second-level cache of any CPU with
/// AVX2 made since 2017.
const CHUNK_VALUES: usize = 48 * 1024;

/// A tile's rows of `A`: row `i` at depth `k` is `rows[i].add(k * step)`.
struct TileRows<const HEIGHT: usize> {
    rows: [*const f32; HEIGHT],
    step: usize,
}

impl Job<'_> {
    /// Chunk by chunk of rows, panel by panel in it: the chunk stays in the second-level cache while the
    /// panels pass by, and a panel in the first while the chunk's tiles do.
    #[inline(always)]
    unsafe fn run<const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(&self) {
        let rows = self.a.count();
        let chunk = (CHUNK_VALUES / self.depth.len().max(1) / HEIGHT).max(1) * HEIGHT;
        for first in (0..rows).step_by(chunk) {
            for panel in 0..self.columns.div_ceil(WIDTH) {
                for top in (first..rows.min(first + chunk)).step_by(HEIGHT) {
                    let height = HEIGHT.min(rows - top);
                    // SAFETY: the lengths were checked by `product`; `top + height` rows and `panel` exist.
                    unsafe {
                        if height == HEIGHT {
                            self.tile::<HEIGHT, WIDTH, FUSED>(top, panel);
                        } else {
                            self.last_rows::<HEIGHT, WIDTH, FUSED>(top, height, panel);
                        }
                    }
                }
            }
        }
    }

    /// Fewer rows than a tile has: a tile of just that many.
    #[inline(always)]
    unsafe fn last_rows<const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(
        &self,
        top: usize,
        height: usize,
        panel: usize,
    ) {
        // SAFETY: as for the caller; every height below 12 has its arm.
        unsafe {
            match height {
                1 => self.tile::<1, WIDTH, FUSED>(top, panel),
                2 => self.tile::<2, WIDTH, FUSED>(top, panel),
                3 => self.tile::<3, WIDTH, FUSED>(top, panel),
                4 => self.tile::<4, WIDTH, FUSED>(top, panel),
                5 => self.tile::<5, WIDTH, FUSED>(top, panel),
                6 => self.tile::<6, WIDTH, FUSED>(top, panel),
                7 => self.tile::<7, WIDTH, FUSED>(top, panel),
                8 => self.tile::<8, WIDTH, FUSED>(top, panel),
                9 => self.tile::<9, WIDTH, FUSED>(top, panel),
                10 => self.tile::<10, WIDTH, FUSED>(top, panel),
                _ => self.tile::<11, WIDTH, FUSED>(top, panel),
            }
        }
    }

    /// One tile: sums over the depth, then the store.
    #[inline(always)]
    unsafe fn tile<const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(&self, top: usize, panel: usize) {
        let left = panel * WIDTH;
        let used = WIDTH.min(self.columns - left);
        // SAFETY: `product` checked that rows `top..top + HEIGHT`, columns `left..left + used`, and the
        // panel's rows of `WIDTH` values over the depth lie within their slices.
        unsafe {
            let b = self.panels.as_ptr().add((panel * self.full_depth + self.depth.start) * WIDTH);
            let a = self.rows::<HEIGHT>(top);
            let c = self.c.add(top * self.c_stride + left);
            // each branch has sums of its own, so that those of the frequent ones never touch memory
            if used < WIDTH {
                let sums = accumulate::<HEIGHT, WIDTH, FUSED>(&a, a.step, b, self.depth.len());
                self.store_last_columns(left, used, &sums, c);
            } else if a.step == 1 {
                let sums = accumulate::<HEIGHT, WIDTH, FUSED>(&a, 1, b, self.depth.len());
                self.store(left, sums, c);
            } else {
                let sums = accumulate::<HEIGHT, WIDTH, FUSED>(&a, a.step, b, self.depth.len());
                self.store(left, sums, c);
            }
        }
    }

    /// Writes a tile of full width.
    #[inline(always)]
    unsafe fn store<const HEIGHT: usize, const WIDTH: usize>(
        &self,
        left: usize,
        sums: [[f32; WIDTH]; HEIGHT],
        c: *mut f32,
    ) {
        for i in 0..HEIGHT {
            // SAFETY: `WIDTH` values of `HEIGHT` rows exist from `c` on, checked by `product`.
            let row = unsafe { &mut *c.add(i * self.c_stride).cast::<[f32; WIDTH]>() };
            self.store_row(left, &sums[i], row);
        }
    }

    /// Writes one row of sums; a full row of known width is a few wide stores.
    #[inline(always)]
    fn store_row<const WIDTH: usize>(&self, left: usize, sums: &[f32; WIDTH], c: &mut [f32; WIDTH]) {
        match self.start {
            Start::Zero => *c = *sums,
            Start::Old => {
                for j in 0..WIDTH {
                    c[j] += sums[j];
                }
            }
            Start::Bias(bias) => match bias[left..].first_chunk::<WIDTH>() {
                Some(bias) => {
                    for j in 0..WIDTH {
                        c[j] = sums[j] + bias[j];
                    }
                }
                None => c.iter_mut().zip(sums).zip(&bias[left..]).for_each(|((c, s), b)| *c = s + b),
            },
        }
    }

    /// Columns at the right edge, fewer than a tile has: through a row of full width.
    #[inline(never)]
    unsafe fn store_last_columns<const HEIGHT: usize, const WIDTH: usize>(
        &self,
        left: usize,
        used: usize,
        sums: &[[f32; WIDTH]; HEIGHT],
        c: *mut f32,
    ) {
        for i in 0..HEIGHT {
            // SAFETY: `used` values of `HEIGHT` rows exist from `c` on, checked by `product`.
            let c = unsafe { std::slice::from_raw_parts_mut(c.add(i * self.c_stride), used) };
            let mut row = [0.0; WIDTH];
            row[..used].copy_from_slice(c);
            self.store_row(left, &sums[i], &mut row);
            c.copy_from_slice(&row[..used]);
        }
    }

    /// Where the rows of a tile begin, at the start of the depth.
    #[inline(always)]
    unsafe fn rows<const HEIGHT: usize>(&self, top: usize) -> TileRows<HEIGHT> {
        // SAFETY: `top + HEIGHT` rows exist, checked by `product`.
        unsafe {
            match self.a {
                Rows::InPlace(a) => {
                    let first = a.data().as_ptr().add(self.depth.start);
                    TileRows { rows: std::array::from_fn(|i| first.add((top + i) * a.row_stride())), step: 1 }
                }
                Rows::Packed { blocks, .. } => {
                    let height = self.block_height;
                    let (block, inside) = (top / height, top % height);
                    let first = blocks.as_ptr().add((block * self.full_depth + self.depth.start) * height + inside);
                    TileRows { rows: std::array::from_fn(|i| first.add(i)), step: height }
                }
            }
        }
    }
}

/// `A·B` for one tile: the loop that everything else is arranged around.
#[inline(always)]
unsafe fn accumulate<const HEIGHT: usize, const WIDTH: usize, const FUSED: bool>(
    a: &TileRows<HEIGHT>,
    step: usize,
    b: *const f32,
    depth: usize,
) -> [[f32; WIDTH]; HEIGHT] {
    let rows = a.rows;
    let mut sums = [[0.0; WIDTH]; HEIGHT];
    for k in 0..depth {
        // SAFETY: `depth` values of each row and `depth` rows of the panel exist.
        unsafe {
            let b = &*b.add(k * WIDTH).cast::<[f32; WIDTH]>();
            for i in 0..HEIGHT {
                let a = *rows[i].add(k * step);
                for j in 0..WIDTH {
                    sums[i][j] = if FUSED { a.mul_add(b[j], sums[i][j]) } else { a * b[j] + sums[i][j] };
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Operands;
    use crate::pack::{pack, packed_len};
    use crate::testing::{assert_close, numbers};

    #[test]
    fn every_tile_size_start_and_layout_equals_naive() {
        for tile in [Tile::portable(), Tile::detect()] {
            for (m, k, n) in [(1, 1, 1), (5, 7, 3), (12, 16, 32), (50, 40, 40), (23, 64, 97), (13, 200, 16)] {
                let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
                let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
                let mut panels = vec![0.0; packed_len(k, n, tile.width())];
                pack(b, tile.width(), 0, Operands::F32, &mut panels);
                let mut blocks = vec![0.0; packed_len(k, m, tile.height())];
                pack(a.transposed(), tile.height(), 0, Operands::F32, &mut blocks);
                let packed = Rows::Packed { blocks: &blocks, rows: m, depth: k };
                for rows in [Rows::InPlace(a), packed] {
                    for start in [Start::Zero, Start::Old, Start::Bias(&bias)] {
                        for depth in [0..k, k / 3..k - k / 4] {
                            let stride = n + 3;
                            let mut fast = numbers(m * stride, 4);
                            let mut expected = fast.clone();
                            product(tile, rows, &panels, k, depth.clone(), n, &mut fast, stride, start);
                            product_naive(a, b, depth, &mut expected, stride, start);
                            assert_close(&fast, &expected, 3e-6); // sums of up to 200 f32 products
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_tile_of_avx512_is_right_whatever_it_is_compiled_for() {
        let (m, k, n) = (31, 20, 70);
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
        let mut panels = vec![0.0; packed_len(k, n, 32)];
        pack(b, 32, 0, Operands::F32, &mut panels);
        let (mut fast, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
        let job = Job {
            a: Rows::InPlace(a),
            block_height: 12,
            panels: &panels,
            full_depth: k,
            depth: 0..k,
            columns: n,
            c: fast.as_mut_ptr(),
            c_stride: n,
            start: Start::Zero,
        };
        // SAFETY: every slice has the length of its shape.
        unsafe { job.run::<12, 32, false>() };
        product_naive(a, b, 0..k, &mut expected, n, Start::Zero);
        assert_close(&fast, &expected, 3e-6);
    }
}
