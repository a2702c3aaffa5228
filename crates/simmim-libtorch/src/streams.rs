//! The functions of `streams.cpp`, as safe functions on tensors: copies beside what a device computes, graphs, TF32.

use crate::shim::{must, taken};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use tch::kind::Element;
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn simmim_upload(
        data: *const c_void,
        bytes: usize,
        shape: *const i64,
        axes: usize,
        scalar_type: c_int,
        on: *const C_tensor,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn simmim_has_graphs(on: *const C_tensor) -> bool;
    fn simmim_graph_begin(on: *const C_tensor, result: *mut *mut c_void) -> *mut c_char;
    fn simmim_graph_end(graph: *mut c_void) -> *mut c_char;
    fn simmim_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn simmim_graph_drop(graph: *mut c_void);
    fn simmim_allow_tf32(is_allowed: bool) -> *mut c_char;
    #[cfg(test)]
    fn simmim_allows_tf32() -> bool;
    fn simmim_record_graphs_on_the_cpu() -> *mut c_char;
}

/// A tensor on the accelerator that `on` lies on. `data` is not needed any more when this returns, and nothing waited for the
/// device.
pub(crate) fn upload<T: Element>(shape: &[i64], data: &[T], on: &Tensor) -> Tensor {
    // numbers of `c10::ScalarType`
    let scalar_type = match T::KIND {
        Kind::Int64 => 4,
        Kind::Float => 6,
        Kind::Bool => 11,
        other => unreachable!("nothing of {other:?} is copied to a device"),
    };
    let mut result = null_mut();
    // SAFETY: the pointers are valid during the call, as long as said, and hold values of that type
    must(unsafe {
        simmim_upload(
            data.as_ptr().cast(),
            size_of_val(data),
            shape.as_ptr(),
            shape.len(),
            scalar_type,
            on.as_ptr(),
            &mut result,
        )
    });
    taken(result)
}

/// Whether work on the device that `on` lies on can be recorded and replayed.
pub(crate) fn has_graphs(on: &Tensor) -> bool {
    // SAFETY: the tensor is alive
    unsafe { simmim_has_graphs(on.as_ptr()) }
}

/// Work of a device that was recorded, or is being recorded.
pub(crate) struct Graph(*mut c_void);

impl Graph {
    /// Records what is queued from here on, and does not do it.
    pub(crate) fn begin(on: &Tensor) -> Self {
        let mut graph = null_mut();
        // SAFETY: the tensor is alive and the place valid
        must(unsafe { simmim_graph_begin(on.as_ptr(), &mut graph) });
        Self(graph)
    }

    /// Ends the recording.
    pub(crate) fn end(&self) {
        // SAFETY: the pointer is that of `begin`
        must(unsafe { simmim_graph_end(self.0) });
    }

    /// Queues the recorded work.
    pub(crate) fn replay(&self) {
        // SAFETY: the pointer is that of `begin`
        must(unsafe { simmim_graph_replay(self.0) });
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the pointer is that of `begin`, and nobody has it any more
        unsafe { simmim_graph_drop(self.0) }
    }
}

/// Whether products of f32 may round their operands to TF32, on GPUs that have it.
pub(crate) fn allow_tf32(is_allowed: bool) {
    // SAFETY: nothing is passed by pointer
    must(unsafe { simmim_allow_tf32(is_allowed) });
}

/// What [`allow_tf32`] said.
#[cfg(test)]
pub(crate) fn allows_tf32() -> bool {
    // SAFETY: nothing is passed
    unsafe { simmim_allows_tf32() }
}

/// Gives the CPU graphs, which libtorch has for GPUs alone: for tests. Operators are called again one by one.
pub fn record_graphs_on_the_cpu() {
    // SAFETY: nothing is passed
    must(unsafe { simmim_record_graphs_on_the_cpu() });
}
