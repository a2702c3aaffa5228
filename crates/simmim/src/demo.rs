//! The demonstration: pre-training on images inside the binary, in minutes.

use crate::error::Result;
use crate::train::Input;
use simmim_data::idx_from_bytes;

/// The recipe of the demonstration.
pub const RECIPE: &str = "demo";

// Fashion-MNIST (arXiv:1708.07747), MIT, Copyright 2017 Zalando SE: 8,000 and 1,000 of its images.
const TRAIN: &[u8] = include_bytes!("../../../assets/fashion-mnist/train-images-idx3-ubyte.gz");
const TEST: &[u8] = include_bytes!("../../../assets/fashion-mnist/test-images-idx3-ubyte.gz");

/// Training and held-out images.
///
/// # Errors
/// If the embedded files are damaged.
pub fn inputs() -> Result<(Input, Input)> {
    let input = |bytes: &[u8], description: &str| -> Result<Input> {
        Ok(Input { source: idx_from_bytes(bytes, None, 1)?, description: description.into() })
    };
    Ok((input(TRAIN, "the embedded Fashion-MNIST")?, input(TEST, "the embedded Fashion-MNIST test images")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_images_are_whole() {
        let (train, test) = inputs().unwrap();
        assert_eq!((train.source.len(), test.source.len()), (8000, 1000));
        assert_eq!(train.source.get(7999).unwrap().image.height, 28);
    }
}
