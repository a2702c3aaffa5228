//! libtorch's devices: whether one is there, what it is called, how it opens a backend.

use crate::{Libtorch, LibtorchError, product_peak, shim, streams};
use simmim_engine::{Accelerator, Device, ParameterTable, Precision, ProductPeak};

/// The library that registers NVIDIA's GPUs with libtorch, or AMD's, by the names of the systems that have it.
const GPU_LIBRARIES: [&std::ffi::CStr; 2] = [c"libtorch_cuda.so", c"libtorch_hip.so"];

/// A device of libtorch that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibtorchDevice {
    device: tch::Device,
    threads: usize,
    has_tf32: bool,
    has_graphs: bool,
}

impl LibtorchDevice {
    /// The device of a name: `cuda`, `cuda:N`, `mps` or `libtorch-cpu`. `threads` are those of the host.
    ///
    /// # Errors
    /// If it is not there, or libtorch is another version than this crate was built with.
    pub fn new(name: &str, threads: usize) -> Result<Self, LibtorchError> {
        let (family, index) = name.split_once(':').map_or((name, None), |(family, index)| (family, Some(index)));
        let unknown = || LibtorchError::UnknownDevice(name.into());
        let device = match (family, index) {
            ("libtorch-cpu", None) => tch::Device::Cpu,
            ("mps", None) => tch::Device::Mps,
            ("cuda", None) => tch::Device::Cuda(0),
            ("cuda", Some(index)) => tch::Device::Cuda(index.parse().map_err(|_| unknown())?),
            (_, _) => return Err(unknown()),
        };
        check_version(shim::version_built(), &shim::configuration())?;
        match device {
            tch::Device::Cpu => (),
            tch::Device::Mps | tch::Device::Vulkan => {
                if !tch::utils::has_mps() {
                    return Err(built_without(name, "MPS"));
                }
            }
            tch::Device::Cuda(index) => {
                let has_library = GPU_LIBRARIES.iter().any(|library| shim::load(library));
                check_gpu(name, index, has_library, gpus())?;
            }
        }
        tch::set_num_threads(threads.max(1) as i32);
        Ok(Self { device, threads: threads.max(1), has_tf32: false, has_graphs: false })
    }

    /// The same, with products of f32 that round their operands to TF32's 10 bits of mantissa.
    ///
    /// # Errors
    /// If it is no GPU of CUDA.
    pub fn with_tf32(self) -> Result<Self, LibtorchError> {
        match self.device {
            tch::Device::Cuda(_) => Ok(Self { has_tf32: true, ..self }),
            tch::Device::Cpu | tch::Device::Mps | tch::Device::Vulkan => Err(LibtorchError::NoTf32(self.name())),
        }
    }

    /// The same, with passes that are recorded once and replayed.
    ///
    /// # Errors
    /// If this libtorch has no graphs for it.
    pub fn with_graphs(self) -> Result<Self, LibtorchError> {
        match streams::has_graphs(&tch::Tensor::zeros([1], (tch::Kind::Float, self.device))) {
            true => Ok(Self { has_graphs: true, ..self }),
            false => Err(LibtorchError::NoGraphs(self.name())),
        }
    }

    /// Number of GPUs that `cuda` can compute on. Loads the library for them, a gigabyte.
    pub fn gpus() -> usize {
        if GPU_LIBRARIES.iter().any(|library| shim::load(library)) { gpus() } else { 0 }
    }

    pub(crate) fn is_cpu(&self) -> bool {
        self.device == tch::Device::Cpu
    }

    pub(crate) fn torch(&self) -> tch::Device {
        self.device
    }

    pub(crate) fn cpu_threads(&self) -> usize {
        self.threads
    }

    /// Waits until everything that was queued is done.
    pub(crate) fn synchronize(&self) {
        match self.device {
            tch::Device::Cpu => (),
            tch::Device::Cuda(index) => shim::synchronize(index),
            tch::Device::Mps | tch::Device::Vulkan => shim::synchronize(0),
        }
    }
}

/// GPUs that libtorch finds.
fn gpus() -> usize {
    if tch::Cuda::is_available() { tch::Cuda::device_count().max(0) as usize } else { 0 }
}

fn built_without(device: &str, what: &'static str) -> LibtorchError {
    LibtorchError::BuiltWithout { device: device.into(), version: shim::version_built().into(), what }
}

fn check_gpu(device: &str, index: usize, has_library: bool, count: usize) -> Result<(), LibtorchError> {
    match (has_library, count) {
        (false, _) => Err(built_without(device, "CUDA")),
        (true, 0) => Err(LibtorchError::NoGpu(device.into())),
        (true, _) if index >= count => Err(LibtorchError::NoSuchIndex { device: device.into(), count }),
        (true, _) => Ok(()),
    }
}

/// Compares the version that this crate was built with to that in libtorch's description of itself.
fn check_version(built: &str, configuration: &str) -> Result<(), LibtorchError> {
    let found = configuration.split("TORCH_VERSION=").nth(1).and_then(|rest| rest.split([',', ' ', '\n']).next());
    match found {
        Some(found) if found != built => Err(LibtorchError::OtherVersion { built: built.into(), found: found.into() }),
        // a build that does not say its version is one that somebody made by hand
        Some(_) | None => Ok(()),
    }
}

impl Device for LibtorchDevice {
    type Backend = Libtorch;

    fn name(&self) -> String {
        match self.device {
            tch::Device::Cpu => "libtorch-cpu".into(),
            tch::Device::Cuda(index) => format!("cuda:{index}"),
            tch::Device::Mps | tch::Device::Vulkan => "mps".into(),
        }
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn open(&self, table: ParameterTable, precision: Precision) -> Libtorch {
        streams::allow_tf32(self.has_tf32);
        Libtorch::new(table, precision, self.device, self.has_graphs)
    }

    fn fastest_precision(&self) -> (Precision, String) {
        match self.device {
            tch::Device::Cpu => (Precision::F32, "auto: libtorch on a CPU".into()),
            tch::Device::Cuda(_) => (Precision::Bf16, "auto: GPUs multiply bf16 faster than f32".into()),
            tch::Device::Mps | tch::Device::Vulkan => (Precision::F32, "auto: libtorch on an Apple GPU".into()),
        }
    }

    fn precision_note(&self, precision: Precision) -> Option<String> {
        match precision {
            Precision::F32 => self.has_tf32.then(|| "products round to TF32".into()),
            Precision::Bf16 => None,
        }
    }

    fn accelerator(&self) -> Option<Accelerator> {
        let index = match self.device {
            tch::Device::Cpu => return None,
            tch::Device::Cuda(index) => index,
            tch::Device::Mps | tch::Device::Vulkan => 0,
        };
        let model = match self.device {
            tch::Device::Cuda(_) => shim::name(index),
            tch::Device::Cpu | tch::Device::Mps | tch::Device::Vulkan => None,
        };
        let memory = shim::memory(index);
        Some(Accelerator {
            model,
            memory_bytes: memory.map(|(total, _)| total),
            most_used_bytes: memory.map(|(_, peak)| peak),
        })
    }

    fn product_peak(&self, precision: Precision) -> ProductPeak {
        streams::allow_tf32(self.has_tf32);
        product_peak::product_peak(self, precision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_apart() {
        assert_eq!(check_gpu("cuda:1", 1, true, 2), Ok(()));
        let check = |index, has_library, count, expected: &str, hint: &str| {
            let error = check_gpu("cuda:1", index, has_library, count).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.hint().contains(hint), "{}", error.hint());
        };
        check(1, false, 0, "was built without CUDA", "pip install torch==2.13.0");
        check(1, true, 0, "no driver", "nvidia-smi");
        check(1, true, 1, "there is 1 GPU", "cuda:0");
        check(4, true, 3, "there are 3 GPUs", "cuda:2");
        for name in ["cuda:x", "cuda:", "tpu", "libtorch-cpu:1", "mps:0"] {
            assert_eq!(LibtorchDevice::new(name, 1), Err(LibtorchError::UnknownDevice(name.into())));
        }
    }

    #[test]
    fn tf32_and_graphs_are_refused_where_they_are_not() {
        let cpu = LibtorchDevice::new("libtorch-cpu", 1).unwrap();
        let error = cpu.with_tf32().unwrap_err();
        assert!(error.to_string().contains("`libtorch-cpu`") && error.hint().contains("cuda"), "{error}");
        let error = cpu.with_graphs().unwrap_err();
        assert!(error.to_string().contains("`libtorch-cpu`") && error.hint().contains("cuda"), "{error}");
        streams::allow_tf32(true);
        assert!(streams::allows_tf32());
        streams::allow_tf32(false);
        assert!(!streams::allows_tf32());
    }

    #[test]
    fn another_version_of_the_library_is_refused() {
        assert_eq!(check_version("2.13.0", "Build settings: A=1, TORCH_VERSION=2.13.0, USE_CUDA=ON"), Ok(()));
        assert_eq!(check_version("2.13.0", "Build settings: A=1"), Ok(()));
        let error = check_version("2.13.0", "TORCH_VERSION=2.12.1, USE_CUDA=ON").unwrap_err();
        assert!(error.to_string().contains("2.12.1") && error.hint().contains("pip install torch==2.13.0"));
        assert!(shim::configuration().contains("TORCH_VERSION="), "{}", shim::configuration());
    }
}
