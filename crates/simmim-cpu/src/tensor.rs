//! The tensor of the CPU backend.

use crate::buffer_pool::Buffer;
use crate::tape::NodeId;
use std::rc::Rc;

/// A tensor of the CPU backend: values that its clones share, and a place on the tape.
#[derive(Clone)]
pub struct CpuTensor {
    pub(crate) node: NodeId,
    pub(crate) shape: Rc<[usize]>,
    pub(crate) data: Rc<Buffer<f32>>,
}

impl CpuTensor {
    /// Length of the last axis.
    pub(crate) fn width(&self) -> usize {
        *self.shape.last().expect("a tensor has at least one axis")
    }

    /// Product of all axes but the last.
    pub(crate) fn rows(&self) -> usize {
        self.data.len() / self.width()
    }

    /// The sizes of a `[B, N, D]` tensor.
    pub(crate) fn tokens_shape(&self) -> (usize, usize, usize) {
        match self.shape[..] {
            [images, tokens, width] => (images, tokens, width),
            _ => panic!("expected [B, N, D], got {:?}", self.shape),
        }
    }

    /// The sizes of a `[B, H, W, C]` tensor.
    pub(crate) fn image_shape(&self) -> (usize, usize, usize, usize) {
        match self.shape[..] {
            [images, height, width, channels] => (images, height, width, channels),
            _ => panic!("expected [B, H, W, C], got {:?}", self.shape),
        }
    }
}
