//! What keeps a device from being used, each with what to do; and memory that runs out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibtorchError {
    /// There is no such device.
    #[error("there is no device `{0}`")]
    UnknownDevice(String),
    /// The library that was loaded is another one than the program was built with.
    #[error("this program was built with libtorch {built}, and the one that was loaded is {found}")]
    OtherVersion {
        /// Version of the headers.
        built: String,
        /// Version of the library.
        found: String,
    },
    /// The library has no part for GPUs.
    #[error("device `{device}`: this libtorch ({version}) was built without {what}")]
    BuiltWithout {
        /// The device.
        device: String,
        /// Version of the library.
        version: String,
        /// What it lacks.
        what: &'static str,
    },
    /// No driver, or no GPU.
    #[error("device `{0}`: libtorch finds no GPU, or no driver for it")]
    NoGpu(String),
    /// It does not know TF32.
    #[error("device `{0}` has no TF32")]
    NoTf32(String),
    /// It cannot record work.
    #[error("device `{0}`: this libtorch has no graphs for it")]
    NoGraphs(String),
    /// There are fewer GPUs.
    #[error("device `{device}`: there {}", match .count { 1 => "is 1 GPU".to_owned(), n => format!("are {n} GPUs") })]
    NoSuchIndex {
        /// The device.
        device: String,
        /// Number of GPUs.
        count: usize,
    },
}

/// Memory that ran out, with libtorch's words on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has not enough memory: {reason}")]
pub struct OutOfMemory {
    /// What was asked for.
    pub reason: String,
}

impl LibtorchError {
    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownDevice(_) => "libtorch's devices are: cuda:N, mps, libtorch-cpu".into(),
            Self::OtherVersion { built, .. } => format!(
                "`pip install torch=={built}` in the environment that this program was built with, and unset \
                 LD_LIBRARY_PATH (DYLD_LIBRARY_PATH on macOS) if it names another one"
            ),
            Self::BuiltWithout { what: "CUDA", .. } => {
                "`pip install torch==2.13.0` on Linux is the build with CUDA; build this program again with it".into()
            }
            Self::BuiltWithout { .. } => "`mps` is for Macs with Apple's own chips and macOS 14 or later".into(),
            Self::NoGpu(_) => {
                "`nvidia-smi` (`rocminfo` for AMD) must list a GPU; `--device libtorch-cpu` computes on the CPU".into()
            }
            Self::NoTf32(_) => "leave out `--tf32`, which is for NVIDIA's GPUs: `--device cuda:N`".into(),
            Self::NoGraphs(_) => "leave out `--graphs`, which is for GPUs: `--device cuda:N`".into(),
            Self::NoSuchIndex { count, .. } => {
                format!("GPUs are numbered from 0: `--device cuda:{}` is the last one", count.saturating_sub(1))
            }
        }
    }
}

/// Runs something that computes with libtorch, and returns an error where its memory runs out. Operations cannot fail in the
/// engine's traits, so that libtorch's refusal arrives as a panic; any other panic goes on.
///
/// # Errors
/// If memory ran out.
pub fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    say_no_panic_of_memory();
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| match memory_text(panic.as_ref()) {
        Some(reason) => OutOfMemory { reason },
        None => resume_unwind(panic),
    })
}

/// A message is enough for memory that ran out, without that of a panic in front of it.
fn say_no_panic_of_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if memory_text(info.payload()).is_none() {
                others(info);
            }
        }));
    });
}

/// The text of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

/// The line of libtorch's message that says which memory ran out; nothing for another panic.
fn memory_text(panic: &(dyn Any + Send)) -> Option<String> {
    let text = panic_text(panic)?;
    // those of CUDA and HIP, of MPS, and of the CPU's allocator
    let signs = ["out of memory", "can't allocate memory", "not enough memory"];
    let at = signs.iter().find_map(|sign| text.find(sign))?;
    let start = text[..at].rfind(['\n', '"']).map_or(0, |at| at + 1);
    let line = text[start..].split("\\n").next().unwrap_or_default().lines().next().unwrap_or_default();
    Some(line.trim_end_matches('.').trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn memory_that_runs_out_is_an_error_and_another_panic_goes_on() {
        let error = guarded(|| Tensor::zeros([1 << 50], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(error.reason.contains("allocate") && !error.reason.contains('\n'), "{error}");
        assert_eq!(guarded(|| 3), Ok(3));
        let other = catch_unwind(|| guarded(|| panic!("something else")));
        assert!(other.is_err());
    }
}
