//! Cutting images into patches, as for a convolution whose stride is the side of its kernel.
//!
//! A patch becomes a row in the order of the convolution's weight `[D, C, p_h, p_w]`: by channel, then by row, then by
//! column. So a linear layer over such rows is the patch embedding. The order is also that of the channels before a
//! pixel shuffle.

/// The sizes of an image and of its patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchSizes {
    /// Channels of the image.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Patch height in pixels; divides `height`.
    pub patch_height: usize,
    /// Patch width in pixels; divides `width`.
    pub patch_width: usize,
}

impl PatchSizes {
    /// Patches along the vertical axis.
    pub fn rows(&self) -> usize {
        self.height / self.patch_height
    }

    /// Patches along the horizontal axis.
    pub fn columns(&self) -> usize {
        self.width / self.patch_width
    }

    /// Length of a patch, `C·p_h·p_w` values.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch_height * self.patch_width
    }

    /// Length of an image, `C·H·W` values.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Calls `visit(offset in the image, offset in the patch)` for each run of `patch_width` values of patch `n`.
    fn runs(&self, n: usize, mut visit: impl FnMut(usize, usize)) {
        let (top, left) = (n / self.columns() * self.patch_height, n % self.columns() * self.patch_width);
        for c in 0..self.channels {
            for i in 0..self.patch_height {
                let image = (c * self.height + top + i) * self.width + left;
                visit(image, (c * self.patch_height + i) * self.patch_width);
            }
        }
    }
}

/// Copies patch `n` of an image to `patch`.
///
/// # Shapes
/// `image` `[C, H, W]` → `patch` `[C·p_h·p_w]`.
pub fn cut_patch(sizes: &PatchSizes, image: &[f32], n: usize, patch: &mut [f32]) {
    sizes.runs(n, |from, to| patch[to..to + sizes.patch_width].copy_from_slice(&image[from..from + sizes.patch_width]));
}

/// Specification of [`cut_patch`].
pub fn cut_patch_naive(sizes: &PatchSizes, image: &[f32], n: usize, patch: &mut [f32]) {
    let s = sizes;
    for (at, value) in patch.iter_mut().enumerate() {
        let (c, i, j) =
            (at / (s.patch_height * s.patch_width), at / s.patch_width % s.patch_height, at % s.patch_width);
        let (y, x) = (n / s.columns() * s.patch_height + i, n % s.columns() * s.patch_width + j);
        *value = image[(c * s.height + y) * s.width + x];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn cutting_equals_naive() {
        for (channels, height, width, patch_height, patch_width) in [(3, 8, 8, 4, 4), (1, 6, 12, 2, 3), (5, 4, 4, 1, 4)]
        {
            let sizes = PatchSizes { channels, height, width, patch_height, patch_width };
            let image = numbers(sizes.image_len(), 1);
            let (mut patch, mut expected) = (vec![0.0; sizes.patch_len()], vec![0.0; sizes.patch_len()]);
            for n in 0..sizes.rows() * sizes.columns() {
                cut_patch(&sizes, &image, n, &mut patch);
                cut_patch_naive(&sizes, &image, n, &mut expected);
                assert_eq!(patch, expected);
            }
        }
    }
}
