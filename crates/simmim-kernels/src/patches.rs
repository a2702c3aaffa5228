//! Cutting images into patches: the layout of a convolution whose stride is its kernel.
//!
//! A patch row lists its pixels as the convolution weight `[D, C, p_h, p_w]` does: channel first,
//! then row, then column. A linear layer over such rows *is* the patch embedding; the same layout on
//! the prediction side is the channel order of a pixel shuffle.

/// Sizes of an image and of the patches it is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGrid {
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

impl PatchGrid {
    /// Patches along the vertical axis.
    pub fn rows(&self) -> usize {
        self.height / self.patch_height
    }

    /// Patches along the horizontal axis.
    pub fn columns(&self) -> usize {
        self.width / self.patch_width
    }

    /// Values of one patch, `C·p_h·p_w`.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch_height * self.patch_width
    }

    /// Values of one image, `C·H·W`.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Calls `visit(offset in the image, offset in the patch)` for each run of `patch_width` pixels
    /// of patch `n`.
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

/// Copies patch `n` of `image` `[C, H, W]` to `patch` `[C·p_h·p_w]`.
pub fn cut_patch(grid: &PatchGrid, image: &[f32], n: usize, patch: &mut [f32]) {
    grid.runs(n, |from, to| patch[to..to + grid.patch_width].copy_from_slice(&image[from..from + grid.patch_width]));
}

/// Specification of [`cut_patch`].
pub fn cut_patch_naive(grid: &PatchGrid, image: &[f32], n: usize, patch: &mut [f32]) {
    let g = grid;
    for (at, value) in patch.iter_mut().enumerate() {
        let (c, i, j) =
            (at / (g.patch_height * g.patch_width), at / g.patch_width % g.patch_height, at % g.patch_width);
        let (y, x) = (n / g.columns() * g.patch_height + i, n % g.columns() * g.patch_width + j);
        *value = image[(c * g.height + y) * g.width + x];
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
            let grid = PatchGrid { channels, height, width, patch_height, patch_width };
            let image = numbers(grid.image_len(), 1);
            let (mut patch, mut expected) = (vec![0.0; grid.patch_len()], vec![0.0; grid.patch_len()]);
            for n in 0..grid.rows() * grid.columns() {
                cut_patch(&grid, &image, n, &mut patch);
                cut_patch_naive(&grid, &image, n, &mut expected);
                assert_eq!(patch, expected);
            }
        }
    }
}
