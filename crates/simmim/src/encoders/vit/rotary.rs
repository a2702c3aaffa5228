//! Rotary positions of patches as DINOv3 has them (arXiv:2508.10104; facebookresearch/dinov3,
//! `dinov3/layers/rope_position_encoding.py`).
//!
//! The center of a patch lies between −1 and 1 along each axis, whatever the number of patches. Of the `E/2` pairs of a head
//! the first half turns with its height and the second with its width, each by `2π·coordinate·base^(−4i/E)`.

use super::VitConfig;
use simmim_engine::Rotary;
use std::f64::consts::TAU;

/// The angles of registers and class token, which do not turn, and of patches in row-major order.
pub(super) fn rotary(config: &VitConfig, (rows, columns): (usize, usize)) -> Rotary {
    let head_width = config.width / config.heads;
    let (others, pairs, frequencies) = (config.registers + 1, head_width / 2, head_width / 4);
    let base = config.rotary_base as f64;
    let center = |i: usize, count: usize| 2.0 * (i as f64 + 0.5) / count as f64 - 1.0;
    let of_axis = |coordinate: f64| {
        (0..frequencies).map(move |i| TAU * coordinate * base.powf(-4.0 * i as f64 / head_width as f64))
    };
    let none = std::iter::repeat_n(0.0, others * pairs);
    let patches = (0..rows * columns)
        .flat_map(|patch| of_axis(center(patch / columns, rows)).chain(of_axis(center(patch % columns, columns))));
    let angles: Vec<f64> = none.chain(patches).collect();
    let of_angles = |of: fn(f64) -> f64| angles.iter().map(|angle| of(*angle) as f32).collect();
    Rotary { cosines: of_angles(f64::cos), sines: of_angles(f64::sin) }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Mlp, PositionBias};
    use super::*;
    use crate::encoders::WeightInit;

    #[test]
    fn height_turns_the_first_pairs_and_width_the_others() {
        let config = VitConfig {
            patch_px: 4,
            width: 16,
            depth: 1,
            heads: 2,
            mlp_ratio: 4.0,
            mlp: Mlp::Gelu,
            qkv_bias: true,
            layer_scale: 0.0,
            absolute_positions: false,
            position_bias: PositionBias::None,
            rotary_base: 100.0,
            registers: 1,
            norm_eps: 1e-5,
            drop_path: 0.0,
            init: WeightInit::Normal,
        };
        // a head is 8 wide: frequencies 100^0 and 100^(−4/8) = 1/10; rows at −1/2 and 1/2, columns at −2/3, 0 and 2/3
        let rotary = rotary(&config, (2, 3));
        assert_eq!((rotary.cosines.len(), rotary.sines.len()), (8 * 4, 8 * 4));
        let mut expected = vec![0.0f64; 2 * 4]; // register and class token
        for row in [-0.5, 0.5] {
            for column in [-2.0 / 3.0, 0.0, 2.0 / 3.0] {
                expected.extend([TAU * row, TAU * row / 10.0, TAU * column, TAU * column / 10.0]);
            }
        }
        for (i, angle) in expected.iter().enumerate() {
            assert!((rotary.cosines[i] as f64 - angle.cos()).abs() < 1e-6, "cosine {i} of {angle}");
            assert!((rotary.sines[i] as f64 - angle.sin()).abs() < 1e-6, "sine {i} of {angle}");
        }
    }
}
