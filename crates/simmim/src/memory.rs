//! Memory that can be foreseen: it is asked for at once and given back before the work begins, so that what the system
//! does not give is an error, where a failed allocation would end the process.
//!
//! A system that promises more than it has, as Linux does up to a point, ends the process later all the same.

use crate::error::{Error, Result};
use crate::recipe::{Shard, TrainRecipe};
use simmim_engine::{Accelerator, Device};

/// Checks that the system gives this many bytes.
///
/// # Errors
/// If it does not; `what` says what takes them.
pub(crate) fn check(what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
    let mut probe: Vec<u8> = Vec::new();
    let is_given = usize::try_from(bytes).is_ok_and(|bytes| probe.try_reserve_exact(bytes).is_ok());
    std::hint::black_box(&probe); // or else the compiler may leave the allocation out
    if is_given { Ok(()) } else { Err(Error::Memory { what: what(), bytes }) }
}

/// What work takes, in bytes.
pub(crate) struct Foreseen {
    /// In the memory of the host, wherever values are computed.
    pub(crate) on_host: u64,
    /// Of parameters, gradients and moments.
    pub(crate) values: u64,
    /// Of what a forward pass keeps, as the CPU backend does.
    pub(crate) activations: u64,
}

/// Checks that host and device have the memory. An accelerator has its own; it may keep less of a pass than is estimated,
/// where attention is fused, so that half of that counts. What does not fit after all is an error of the first step.
///
/// # Errors
/// If one of them does not; `what` says what takes it.
pub(crate) fn check_on(device: &impl Device, what: impl FnOnce() -> String, foreseen: &Foreseen) -> Result<()> {
    let Foreseen { on_host, values, activations } = *foreseen;
    match device.accelerator() {
        None => check(what, on_host.saturating_add(values).saturating_add(activations)),
        Some(Accelerator { memory_bytes: None, .. }) => check(what, on_host),
        Some(Accelerator { memory_bytes: Some(memory), .. }) => match values.saturating_add(activations / 2) {
            bytes if bytes > memory => Err(Error::DeviceMemory {
                reason: format!("{} takes {:.1} GB of its {:.1} GB", what(), bytes as f64 / 1e9, memory as f64 / 1e9),
            }),
            _ => check(what, on_host),
        },
    }
}

/// The bytes of this many f32 values.
pub(crate) fn of_values(count: usize) -> u64 {
    4 * count as u64
}

/// The bytes that one of `world` ranks keeps of so many parameters in training: themselves, gradients, two moments, and the
/// average. With micro-batches, gradients are whole until the last of them.
pub(crate) fn of_training(parameters: usize, train: &TrainRecipe, world: usize) -> u64 {
    let share = parameters.div_ceil(world);
    let (gradients, states) = match train.shard {
        Shard::None => (parameters, parameters),
        Shard::Optimizer => (parameters, share),
        Shard::Gradients if train.accumulation_steps > 1 && world > 1 => (parameters + share, share),
        Shard::Gradients => (share, share),
    };
    let states = states.saturating_mul(2 + usize::from(train.average_decay > 0.0));
    of_values(parameters.saturating_add(gradients).saturating_add(states))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DEVICE, TestBackend};
    use simmim_engine::{ParameterTable, Precision, ProductPeak};

    /// The test device with a memory of its own.
    #[derive(Clone)]
    struct WithMemory(Option<u64>);

    impl Device for WithMemory {
        type Backend = TestBackend;

        fn name(&self) -> String {
            DEVICE.name()
        }

        fn threads(&self) -> usize {
            DEVICE.threads()
        }

        fn open(&self, table: ParameterTable, precision: Precision) -> TestBackend {
            DEVICE.open(table, precision)
        }

        fn fastest_precision(&self) -> (Precision, String) {
            DEVICE.fastest_precision()
        }

        fn precision_note(&self, precision: Precision) -> Option<String> {
            DEVICE.precision_note(precision)
        }

        fn accelerator(&self) -> Option<Accelerator> {
            Some(Accelerator { model: None, memory_bytes: self.0, most_used_bytes: None })
        }

        fn product_peak(&self, precision: Precision) -> ProductPeak {
            DEVICE.product_peak(precision)
        }
    }

    #[test]
    fn an_accelerator_has_memory_of_its_own() {
        let what = || "a model".to_owned();
        let takes = |on_host, values, activations| Foreseen { on_host, values, activations };
        let no_host = 1 << 62; // which no system gives
        assert!(check_on(&DEVICE, what, &takes(1, 1, no_host)).is_err());
        check_on(&WithMemory(None), what, &takes(1, no_host, no_host)).unwrap();
        check_on(&WithMemory(Some(8_000_000_000)), what, &takes(1, 6_000_000_000, 4_000_000_000)).unwrap();
        let error =
            check_on(&WithMemory(Some(8_000_000_000)), what, &takes(1, 7_000_000_000, 4_000_000_000)).unwrap_err();
        assert!(error.to_string().contains("a model takes 9.0 GB of its 8.0 GB"), "{error}");
        let error = check_on(&WithMemory(Some(8_000_000_000)), what, &takes(no_host, 1, 1)).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error}");
    }

    #[test]
    fn what_no_system_gives_is_an_error_that_says_how_much() {
        check(|| "little".into(), 1 << 10).unwrap();
        for bytes in [1 << 62, u64::MAX] {
            let error = check(|| "a model of 7 parameters".into(), bytes).unwrap_err();
            assert!(error.to_string().contains("a model of 7 parameters takes"), "{error}");
            assert!(!error.is_users_fault() && error.hint().is_some());
        }
    }
}
