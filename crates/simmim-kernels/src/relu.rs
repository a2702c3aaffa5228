//! The rectified linear unit, `max(x, 0)`.

use multiversion::multiversion;

/// Replaces each value below zero by zero. NaN stays NaN, as in PyTorch.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn relu(x: &mut [f32]) {
    for v in x {
        *v = if *v < 0.0 { 0.0 } else { *v };
    }
}

/// Specification of [`relu`].
pub fn relu_naive(x: &mut [f32]) {
    for v in x {
        if *v < 0.0 {
            *v = 0.0;
        }
    }
}

/// Sets the gradient `d` to zero where `y` is not above zero; `y` may be the output or, having the same sign, the
/// input.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn relu_backward(y: &[f32], d: &mut [f32]) {
    assert_eq!(y.len(), d.len());
    for (d, y) in d.iter_mut().zip(y) {
        *d = if *y > 0.0 { *d } else { 0.0 };
    }
}

/// Specification of [`relu_backward`].
pub fn relu_backward_naive(y: &[f32], d: &mut [f32]) {
    for i in 0..d.len() {
        if y[i] <= 0.0 {
            d[i] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn both_directions_equal_naive() {
        let (mut fast, mut d_fast) = (numbers(77, 1), numbers(77, 2));
        let (mut naive, mut d_naive) = (fast.clone(), d_fast.clone());
        relu(&mut fast);
        relu_naive(&mut naive);
        assert_eq!(fast, naive);
        relu_backward(&naive, &mut d_fast);
        relu_backward_naive(&naive, &mut d_naive);
        assert_eq!(d_fast, d_naive);
    }

    #[test]
    fn the_gradient_passes_only_where_the_value_is_above_zero() {
        let mut x = [-1.0, 0.0, 2.0, f32::NAN];
        relu(&mut x);
        assert_eq!(x[..3], [0.0, 0.0, 2.0]);
        assert!(x[3].is_nan());
        let x = [0.0, 0.0, 2.0];
        let mut d = [5.0, 6.0, 7.0];
        relu_backward(&x, &mut d);
        assert_eq!(d, [0.0, 0.0, 7.0]);
    }
}
