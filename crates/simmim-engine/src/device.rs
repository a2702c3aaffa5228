//! Where a backend computes: what a program chooses once and everything else is generic over.

use crate::backend::Backend;
use crate::operations::Precision;
use crate::parameters::ParameterTable;

/// A place to compute: the cores of a machine, or one accelerator.
pub trait Device: Clone {
    /// What computes there.
    type Backend: Backend + 'static;

    /// Its name on the command line and in files, such as `cpu`.
    fn name(&self) -> String;

    /// Threads of the host that it computes on.
    fn threads(&self) -> usize;

    /// A backend for the parameters of `table`, all zero.
    fn open(&self, table: ParameterTable, precision: Precision) -> Self::Backend;

    /// The faster arithmetic here, and why, in a few words.
    fn fastest_precision(&self) -> (Precision, String);

    /// What is worth knowing about computing in `precision` here, such as that it is emulated.
    fn precision_note(&self, precision: Precision) -> Option<String>;

    /// What is known of an accelerator; nothing for the host's own cores.
    fn accelerator(&self) -> Option<Accelerator> {
        None
    }

    /// Whether its backends can divide the training state over ranks: see [`Backend::shard`].
    fn divides_state(&self) -> bool {
        false
    }

    /// Measures the product peak; takes about half a second.
    fn product_peak(&self, precision: Precision) -> ProductPeak;
}

/// An accelerator with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// Its name, if its driver says it.
    pub model: Option<String>,
    /// Bytes of its memory, if known.
    pub memory_bytes: Option<u64>,
    /// The most bytes of it that tensors of this process took at a time, if known.
    pub most_used_bytes: Option<u64>,
}

/// Multiply-adds of one precision that registers allow, in 10⁹ operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductPeak {
    /// The instruction.
    pub instruction: &'static str,
    /// On one thread.
    pub one_thread: f64,
    /// On all threads together.
    pub all_threads: f64,
}

impl ProductPeak {
    /// Whether the threads together are much slower than each alone, as on a shared host that takes cores away:
    /// below 1.6 times for two threads.
    pub fn is_disturbed(&self, threads: usize) -> bool {
        self.all_threads < 0.8 * threads as f64 * self.one_thread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_threads_show() {
        let two = |all_threads| ProductPeak { instruction: "", one_thread: 10.0, all_threads }.is_disturbed(2);
        assert!(two(15.9) && !two(16.1));
    }
}
