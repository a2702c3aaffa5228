//! CPU kernels of vision-transformer training, on slices with sizes as arguments.
//!
//! Nothing here knows a tensor, an image, a configuration or a thread: the caller splits the work.
//! Each fast kernel has a `_naive` twin beside it, which is its specification and the oracle of its
//! test. Instructions are picked at run time, so one binary runs on any x86-64 or aarch64.
//!
//! Dimension letters, here and everywhere: `B` images, `C` channels, `H W` pixels, `p` patch side,
//! `N` tokens, `D` width, `A` heads, `E = D/A` head width, `M` tokens of a window.

pub mod adamw;
pub mod aligned;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bf16;
pub mod convolution;
pub mod discrete_vae;
pub mod element;
pub mod elementwise;
pub mod gelu;
pub mod heads;
mod instructions;
pub mod layer_norm;
pub mod loss;
pub mod math;
pub mod matrix;
pub mod pack;
pub mod patches;
pub mod peak;
pub mod pool;
pub mod position_bias;
pub mod product;
pub mod relu;
pub mod softmax;
pub mod stored;

#[cfg(test)]
mod testing;
