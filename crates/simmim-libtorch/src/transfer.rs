//! The only places where values cross between host and device. They are counted.

use crate::{Libtorch, streams};
use tch::kind::Element;
use tch::{Device, Kind, Tensor, no_grad};

/// How often values crossed since a backend was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Copies to the device, which nothing waits for.
    pub uploads: u64,
    /// Copies to the host, each of which waits for the device.
    pub downloads: u64,
}

impl Libtorch {
    /// A tensor on the device that holds `data`. For a GPU the copy is from pinned memory and beside what the GPU computes, so
    /// that neither waits.
    ///
    /// # Panics
    /// If `data` does not fill `shape`.
    pub(crate) fn upload<T: Element>(&self, shape: &[i64], data: &[T]) -> Tensor {
        assert_eq!(shape.iter().product::<i64>(), data.len() as i64, "values do not fill shape {shape:?}");
        let mut transfers = self.state.transfers.get();
        transfers.uploads += 1;
        self.state.transfers.set(transfers);
        let fresh = no_grad(|| match self.state.device {
            Device::Cpu => Tensor::from_slice(data).view(shape),
            // it is brought to the device when the recording has ended
            _ if self.is_recording_graph() => Tensor::from_slice(data).view(shape),
            Device::Cuda(_) => streams::upload(shape, data, &self.state.place),
            Device::Mps | Device::Vulkan => Tensor::from_slice(data).view(shape).to_device(self.state.device),
        });
        self.given(shape, T::KIND, fresh)
    }

    /// The values of a tensor on the host.
    pub(crate) fn download(&self, tensor: &Tensor) -> Vec<f32> {
        let mut transfers = self.state.transfers.get();
        transfers.downloads += 1;
        self.no_graph_can();
        self.state.transfers.set(transfers);
        no_grad(|| {
            let host = tensor.detach().to_kind(Kind::Float).to_device(Device::Cpu).contiguous().view(-1);
            Vec::try_from(&host).expect("a flat tensor of f32 becomes a vector")
        })
    }
}
