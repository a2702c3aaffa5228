//! SwiGLU (arXiv:2002.05202): a linear layer's outputs gated by as many others, `silu(gate)·value` with
//! `silu(x) = x·sigmoid(x)`.

use crate::math::exp;
use multiversion::{multiversion, target::target_cfg_f};

/// Gates each row.
///
/// # Shapes
/// `x` `[R, 2H]`, in each row every gate and then every value; `out` `[R, H]`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn swiglu(x: &[f32], hidden: usize, out: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    for (x, out) in x.chunks_exact(2 * hidden).zip(out.chunks_exact_mut(hidden)) {
        let (gates, values) = x.split_at(hidden);
        for ((out, gate), value) in out.iter_mut().zip(gates).zip(values) {
            *out = gate * sigmoid::<FUSED>(*gate) * value;
        }
    }
}

/// Specification of [`swiglu`], in f64.
pub fn swiglu_naive(x: &[f32], hidden: usize, out: &mut [f32]) {
    for (i, out) in out.iter_mut().enumerate() {
        let (row, h) = (i / hidden, i % hidden);
        let (gate, value) = (x[row * 2 * hidden + h] as f64, x[row * 2 * hidden + hidden + h] as f64);
        *out = (gate / (1.0 + (-gate).exp()) * value) as f32;
    }
}

/// Writes the gradient of `x` to `d_x`, given that of the output.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn swiglu_backward(x: &[f32], hidden: usize, d_out: &[f32], d_x: &mut [f32]) {
    const FUSED: bool = target_cfg_f!(any(target_feature = "fma", target_feature = "neon"));
    let rows = x.chunks_exact(2 * hidden).zip(d_out.chunks_exact(hidden)).zip(d_x.chunks_exact_mut(2 * hidden));
    for ((x, d_out), d_x) in rows {
        let ((gates, values), (d_gates, d_values)) = (x.split_at(hidden), d_x.split_at_mut(hidden));
        for ((((d_gate, d_value), gate), value), d) in
            d_gates.iter_mut().zip(d_values).zip(gates).zip(values).zip(d_out)
        {
            let share = sigmoid::<FUSED>(*gate);
            *d_gate = d * value * share * (1.0 + gate * (1.0 - share));
            *d_value = d * gate * share;
        }
    }
}

/// Specification of [`swiglu_backward`], in f64.
pub fn swiglu_backward_naive(x: &[f32], hidden: usize, d_out: &[f32], d_x: &mut [f32]) {
    for (i, d) in d_out.iter().enumerate() {
        let at = i / hidden * 2 * hidden + i % hidden;
        let (gate, value, d) = (x[at] as f64, x[at + hidden] as f64, *d as f64);
        let share = 1.0 / (1.0 + (-gate).exp());
        d_x[at] = (d * value * (share + gate * share * (1.0 - share))) as f32;
        d_x[at + hidden] = (d * gate * share) as f32;
    }
}

#[inline(always)]
fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn both_directions_equal_naive() {
        let (rows, hidden) = (3, 37);
        let mut x: Vec<f32> = numbers(rows * 2 * hidden, 1).iter().map(|v| 8.0 * v).collect();
        (x[0], x[1]) = (-200.0, 200.0); // beyond what `exp` can give
        let [mut fast, mut naive] = [(); 2].map(|()| vec![9.0; rows * hidden]);
        swiglu(&x, hidden, &mut fast);
        swiglu_naive(&x, hidden, &mut naive);
        assert_close(&fast, &naive, 1e-6);
        let d_out = numbers(rows * hidden, 2);
        let [mut fast, mut naive] = [(); 2].map(|()| vec![9.0; x.len()]);
        swiglu_backward(&x, hidden, &d_out, &mut fast);
        swiglu_backward_naive(&x, hidden, &d_out, &mut naive);
        assert_close(&fast, &naive, 1e-6);
    }
}
