//! Kernels that compute each value by itself: exp and erf, GELU and ReLU, rounding to bf16, AdamW.

mod common;

use common::{bench_with_naive, numbers};
use criterion::{Criterion, criterion_group, criterion_main};
use multiversion::{multiversion, target::target_cfg_f};
use simmim_kernels::adamw::{AdamWStep, adamw, adamw_naive};
use simmim_kernels::bf16::{narrow, narrow_naive, widen, widen_naive};
use simmim_kernels::dtype::Bf16;
use simmim_kernels::gelu::{gelu, gelu_naive};
use simmim_kernels::math::{erf_and_gauss, erf_and_gauss_naive, exp, exp_naive};
use simmim_kernels::relu::{relu, relu_backward, relu_backward_naive, relu_naive};

/// Values of 64 tokens of ViT-S.
const LEN: usize = 64 * COLUMNS;
const COLUMNS: usize = 384;

/// [`exp`] as kernels use it, in a loop that is compiled for the widest instructions.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn exp_of_each(x: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    x.iter_mut().for_each(|v| *v = exp::<FUSED>(*v));
}

/// [`erf_and_gauss`] in the same way. The sum makes use of both results.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn erf_of_each(x: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for v in x {
        let (erf, gauss) = erf_and_gauss::<FUSED>(*v);
        *v = erf + gauss;
    }
}

fn functions(c: &mut Criterion) {
    let x: Vec<f32> = numbers(LEN).iter().map(|v| 3.0 * v).collect();
    let (d, [mut values, mut slopes]) = (numbers(LEN), [(); 2].map(|_| vec![0.0; LEN]));

    let kernels: [fn(&mut [f32]); 2] = [exp_of_each, |x| x.iter_mut().for_each(|v| *v = exp_naive(*v) as f32)];
    bench_with_naive(c, "exp", kernels, &x, COLUMNS, |kernel, x| kernel(x));
    let kernels: [fn(&mut [f32]); 2] = [erf_of_each, |x| {
        for v in x {
            let (erf, gauss) = erf_and_gauss_naive(*v);
            *v = (erf + gauss) as f32;
        }
    }];
    bench_with_naive(c, "erf_and_gauss", kernels, &x, COLUMNS, |kernel, x| kernel(x));
    let kernels = [gelu, gelu_naive];
    bench_with_naive(c, "gelu", kernels, &x, COLUMNS, |kernel, x| {
        let len = x.len();
        kernel(x, &mut values[..len], &mut slopes[..len]);
    });
    let kernels = [relu, relu_naive];
    bench_with_naive(c, "relu", kernels, &x, COLUMNS, |kernel, x| kernel(x));
    let kernels = [relu_backward, relu_backward_naive];
    bench_with_naive(c, "relu_backward", kernels, &d, COLUMNS, |kernel, d| kernel(&x[..d.len()], d));
}

fn rounding(c: &mut Criterion) {
    let (mut wide, mut half) = (numbers(LEN), vec![Bf16::default(); LEN]);
    let kernels = [narrow, narrow_naive];
    bench_with_naive(c, "narrow", kernels, &wide, COLUMNS, |kernel, wide| kernel(wide, &mut half[..wide.len()]));
    let kernels = [widen, widen_naive];
    bench_with_naive(c, "widen", kernels, &half, COLUMNS, |kernel, half| kernel(half, &mut wide[..half.len()]));
}

fn optimizer(c: &mut Criterion) {
    let (parameter, gradient) = (numbers(LEN), numbers(LEN));
    let (mut first, mut second) = (vec![0.0; LEN], vec![0.0; LEN]);
    let step =
        AdamWStep { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, number: 7, gradient_scale: 0.5 };
    let kernels = [adamw, adamw_naive];
    bench_with_naive(c, "adamw", kernels, &parameter, COLUMNS, |kernel, parameter| {
        let len = parameter.len();
        kernel(&step, parameter, &gradient[..len], &mut first[..len], &mut second[..len]);
    });
}

fn elements(c: &mut Criterion) {
    functions(c);
    rounding(c);
    optimizer(c);
}

criterion_group!(benches, elements);
criterion_main!(benches);
