//! The samples of another source, of which a window of values is shown.

use std::sync::Arc;

use super::{PassedOver, Source};
use crate::decode::Window;
use crate::encoded::Encoded;
use crate::error::{Error, Result};

/// A source whose pictures are decoded by a window of the user, not by those of their files.
pub(super) struct Windowed {
    pub(super) source: Arc<dyn Source>,
    pub(super) window: Window,
}

impl Source for Windowed {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        Ok(self.source.encoded(index)?.with_window(self.window))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.source.label(index)
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.source.labels(index)
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.source.is_labeled(index)
    }

    fn passed_over(&self) -> &PassedOver {
        self.source.passed_over()
    }

    fn why_unlabeled(&self) -> Option<Error> {
        self.source.why_unlabeled()
    }
}
