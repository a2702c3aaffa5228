//! Memory that can be foreseen: it is asked for at once and given back before the work begins, so that what the system
//! does not give is an error, where a failed allocation would end the process.
//!
//! A system that promises more than it has, as Linux does up to a point, ends the process later all the same.

use crate::error::{Error, Result};
use crate::recipe::{Shard, TrainRecipe};

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
