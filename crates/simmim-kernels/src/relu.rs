//! The rectifier `max(x, 0)`.

use multiversion::multiversion;

/// Replaces each value below zero by zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn relu(x: &mut [f32]) {
    for v in x {
        *v = v.max(0.0);
    }
}

/// Clears the gradient where the output `y` is not above zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn relu_backward(y: &[f32], d: &mut [f32]) {
    assert_eq!(y.len(), d.len());
    for (d, y) in d.iter_mut().zip(y) {
        *d = if *y > 0.0 { *d } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_passes_where_the_value_does() {
        let mut x = [-1.0, 0.0, 2.0];
        relu(&mut x);
        assert_eq!(x, [0.0, 0.0, 2.0]);
        let mut d = [5.0, 6.0, 7.0];
        relu_backward(&x, &mut d);
        assert_eq!(d, [0.0, 0.0, 7.0]);
    }
}
