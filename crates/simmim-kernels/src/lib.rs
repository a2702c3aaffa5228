//! CPU kernels of vision-transformer training: functions on slices that take sizes as arguments.
//!
//! A kernel knows no tensor, image file, recipe or thread. The caller (`simmim-cpu`) divides the work among threads and
//! calls a kernel for each part. If the lengths of slices do not fit together, a kernel panics or leaves out what does
//! not fit; none reads or writes outside of a slice.
//!
//! Each fast kernel has a `_naive` twin in the same file: a few plain loops, often in f64, that specify what the kernel
//! computes. The kernel's test compares the two. Which instructions a kernel uses is decided at run time by what the
//! CPU has, so one binary runs on every x86-64 and aarch64 CPU.
//!
//! Dimension letters, here and in all comments: `B` images, `C` channels, `H W` pixels, `p` patch side, `N` tokens, `D`
//! width, `A` heads, `E = D/A` head width, `M` tokens of a window. A product is `C = A·B` with sizes `M`, `K` (the
//! depth) and `N`, as in BLAS.
//!
//! ```
//! use simmim_kernels::matrix::Matrix;
//! use simmim_kernels::pack::{Packed, pack_depth_by_row};
//! use simmim_kernels::product::{Accumulator, Tile, product, product_naive};
//!
//! let a = Matrix::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3); // [M, K]
//! let b = Matrix::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 3, 2); // [K, N]
//!
//! // the fast product reads B in panels as wide as a tile
//! let tile = Tile::detect();
//! let layout = tile.panels::<f32>(3, 2);
//! let mut panels = vec![0; layout.lanes()];
//! pack_depth_by_row(b, layout, &mut panels);
//! let mut c = [0.0; 4];
//! product(tile, a, Packed::new(&panels, layout), &mut c, 2, Accumulator::Zero);
//!
//! let mut expected = [0.0; 4];
//! product_naive(a, b, &mut expected, 2, Accumulator::Zero);
//! assert_eq!(c, expected); // small whole numbers, so both are exact
//! assert_eq!(c, [4.0, 5.0, 10.0, 11.0]);
//! ```

// Only the modules below that allow it contain unsafe code. `cargo xtask tidy` checks the exact list of their files.
#![deny(unsafe_code)]

pub mod adamw;
pub mod aligned;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "registers of tiles are reached by assembly, after a check that the CPU has them")]
mod amx;
pub mod attention;
pub mod attention_weights;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "AVX-512 is reached by intrinsics, after a check that the CPU has it")]
mod avx512;
pub mod bf16;
pub mod continuous_position_bias;
pub mod convolution;
pub mod discrete_vae;
pub mod dtype;
pub mod elementwise;
pub mod epilogue;
pub mod gelu;
pub mod heads;
mod instructions;
pub mod layer_norm;
pub mod loss;
pub mod math;
pub mod matrix;
pub mod pack;
pub mod patches;
#[allow(unsafe_code, reason = "the loop is compiled for instructions that the CPU is asked for at run time")]
pub mod peak;
pub mod pooling;
#[allow(unsafe_code, reason = "tiles read packed panels by pointer, by instructions that the CPU is asked for")]
pub mod product;
mod reductions;
pub mod relu;
pub mod rotary;
pub mod softmax;
pub mod swiglu;

#[cfg(test)]
mod testing;
