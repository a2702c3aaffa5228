//! The functions of `shim.cpp`, as safe functions on tensors: what the binding lacks.

use crate::Libtorch;
use simmim_engine::Segment;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use tch::Tensor;
use torch_sys::C_tensor;

type Again = extern "C" fn(*mut c_void, *const C_tensor, *mut *mut C_tensor) -> *mut c_char;

unsafe extern "C" {
    fn simmim_free(message: *mut c_char);
    fn simmim_copy(text: *const c_char) -> *mut c_char;
    fn simmim_pick_rows(
        source: *const C_tensor,
        index: *const C_tensor,
        padding: *const C_tensor,
        inverse: *const C_tensor,
        inverse_padding: *const C_tensor,
        rows: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn simmim_recompute(
        input: *const C_tensor,
        output: *const C_tensor,
        segment: *mut c_void,
        again: Again,
        drop: extern "C" fn(*mut c_void),
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn simmim_backward(output: *const C_tensor, d_output: *const C_tensor, keeps_graph: bool) -> *mut c_char;
    fn simmim_set_gradient(leaf: *mut C_tensor, gradient: *const C_tensor) -> *mut c_char;
    fn simmim_forget_graph(tensor: *mut C_tensor) -> *mut c_char;
    fn simmim_norm(tensors: *const *const C_tensor, count: usize, norm: *mut *mut C_tensor) -> *mut c_char;
    fn simmim_fused_adamw(
        tensors: *const *const C_tensor,
        count: usize,
        step: *const C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        divisor: *const C_tensor,
        found_inf: *const C_tensor,
    ) -> *mut c_char;
    fn simmim_start_counting(handle: *mut u64) -> *mut c_char;
    fn simmim_stop_counting(handle: u64, lines: *mut *mut c_char) -> *mut c_char;
    fn simmim_version_built() -> *const c_char;
    fn simmim_configuration(text: *mut *mut c_char) -> *mut c_char;
    fn simmim_load(library: *const c_char) -> bool;
    fn simmim_synchronize(index: c_int) -> *mut c_char;
    fn simmim_memory(index: c_int, total: *mut u64, peak: *mut u64) -> *mut c_char;
    fn simmim_name(index: c_int, name: *mut c_char, length: c_int) -> bool;
}

/// The text of a string that C++ allocated, which is freed.
fn take_text(text: *mut c_char) -> String {
    // SAFETY: the shim returns strings of `strdup`, each of which is taken once
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        simmim_free(text);
        owned
    }
}

fn result(message: *mut c_char) -> Result<(), String> {
    if message.is_null() { Ok(()) } else { Err(take_text(message)) }
}

/// Operations cannot fail in the traits, so that what libtorch refuses ends as it does in the binding: in a panic, which
/// [`crate::guarded`] turns into an error if memory ran out.
#[track_caller]
pub(crate) fn must(message: *mut c_char) {
    if let Err(text) = result(message) {
        panic!("libtorch: {text}");
    }
}

pub(crate) fn taken(tensor: *mut C_tensor) -> Tensor {
    // SAFETY: the shim returned it for its caller to own
    unsafe { Tensor::from_ptr(tensor) }
}

fn pointer(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(null(), Tensor::as_ptr)
}

/// Rows of `[R, D]` of which each is picked at most once, and zeros where `padding` `[P, 1]` is true; `inverse` and its
/// padding pick the gradient's.
pub(crate) fn pick_rows(
    source: &Tensor,
    (index, padding): (&Tensor, Option<&Tensor>),
    (inverse, inverse_padding): (&Tensor, Option<&Tensor>),
) -> Tensor {
    let mut rows = null_mut();
    // SAFETY: all pointers are of tensors that are alive, or null where the shim takes that
    must(unsafe {
        simmim_pick_rows(
            source.as_ptr(),
            index.as_ptr(),
            pointer(padding),
            inverse.as_ptr(),
            pointer(inverse_padding),
            &mut rows,
        )
    });
    taken(rows)
}

/// What a segment needs to run again: once, by the backward pass.
struct Recomputed {
    b: Libtorch,
    /// The input and the segment, which go as soon as they are used: the graph lives until the end of the step.
    once: Option<(Tensor, Segment<Libtorch>)>,
}

/// Makes `output`, which `segment` computed of `input` without recording, depend on `input` by running the segment again in
/// the backward pass.
pub(crate) fn recompute(b: &Libtorch, input: &Tensor, output: &Tensor, segment: Segment<Libtorch>) -> Tensor {
    let held = Box::new(Recomputed { b: b.clone(), once: Some((input.detach(), segment)) });
    let mut result = null_mut();
    // SAFETY: both tensors are alive, and the box is freed by `drop_segment` alone, which the shim calls once. The backward
    // pass may run the segment on a thread of libtorch's, while the thread that owns the backend waits in `backward` and
    // touches nothing: never two threads at a time, and the hand-over is by libtorch's locks.
    must(unsafe {
        simmim_recompute(
            input.as_ptr(),
            output.as_ptr(),
            Box::into_raw(held).cast(),
            run_again,
            drop_segment,
            &mut result,
        )
    });
    taken(result)
}

extern "C" fn drop_segment(segment: *mut c_void) {
    // SAFETY: the pointer is that of the box which `recompute` gave away
    drop(unsafe { Box::from_raw(segment.cast::<Recomputed>()) });
}

extern "C" fn run_again(segment: *mut c_void, d_output: *const C_tensor, d_input: *mut *mut C_tensor) -> *mut c_char {
    // SAFETY: the pointer is that of the box which `recompute` gave away, and is used by one thread at a time
    let held = unsafe { &mut *segment.cast::<Recomputed>() };
    // SAFETY: the tensor is alive during the call; this is another handle to it
    let d_output = unsafe { Tensor::clone_from_ptr(d_output.cast_mut()) };
    // no panic may cross into C++
    let gradient = catch_unwind(AssertUnwindSafe(|| {
        let (input, segment) = held.once.take().expect("a graph is gone through once");
        let input = input.set_requires_grad(true);
        let output = held.b.record_as(true, || segment(&held.b, &crate::LibtorchTensor(input.shallow_clone())));
        // tensors that several segments use, such as a table of positions, have a graph that all of them go through
        if output.0.requires_grad() {
            backward(&output.0, Some(&d_output), true);
        }
        let gradient = input.grad();
        if gradient.defined() { gradient } else { input.zeros_like() }
    }));
    match gradient {
        Ok(gradient) => {
            // SAFETY: the shim gave the place, and takes the tensor over
            unsafe { *d_input = torch_sys::at_shallow_clone(gradient.as_ptr().cast_mut()) };
            null_mut()
        }
        Err(panic) => {
            let text = crate::error::panic_text(panic.as_ref()).unwrap_or("a segment could not be recomputed");
            let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
            // SAFETY: the shim copies the text, and frees the copy
            unsafe { simmim_copy(text.as_ptr()) }
        }
    }
}

/// Adds the gradients of `output` to those of all leaves.
pub(crate) fn backward(output: &Tensor, d_output: Option<&Tensor>, keeps_graph: bool) {
    // SAFETY: the tensors are alive
    must(unsafe { simmim_backward(output.as_ptr(), pointer(d_output), keeps_graph) });
}

/// Replaces the gradient of a leaf.
pub(crate) fn set_gradient(leaf: &Tensor, gradient: Option<&Tensor>) {
    // SAFETY: the tensors are alive; libtorch's handles to one tensor share its gradient
    must(unsafe { simmim_set_gradient(leaf.as_ptr().cast_mut(), pointer(gradient)) });
}

/// Makes a tensor, in all its handles, a value that was computed from nothing.
pub(crate) fn forget_graph(tensor: &Tensor) {
    // SAFETY: the tensor is alive
    must(unsafe { simmim_forget_graph(tensor.as_ptr().cast_mut()) });
}

/// The norm of all values of some tensors together.
pub(crate) fn norm(tensors: &[Tensor]) -> Tensor {
    let pointers: Vec<_> = tensors.iter().map(Tensor::as_ptr).collect();
    let mut norm = null_mut();
    // SAFETY: the tensors are alive, and as many as said
    must(unsafe { simmim_norm(pointers.as_ptr(), pointers.len(), &mut norm) });
    taken(norm)
}

/// Settings of [`fused_adamw`].
pub(crate) struct FusedStep<'a> {
    pub(crate) number: &'a Tensor,
    pub(crate) betas: (f64, f64),
    pub(crate) eps: f64,
    /// What gradients are divided by.
    pub(crate) divisor: &'a Tensor,
    /// One where nothing is to change.
    pub(crate) found_inf: &'a Tensor,
}

/// One AdamW step of parameters that share learning rate and decay: parameters, gradients, first and second moments.
pub(crate) fn fused_adamw(lists: [&[Tensor]; 4], lr: f64, weight_decay: f64, step: &FusedStep) {
    let count = lists[0].len();
    assert!(lists.iter().all(|list| list.len() == count), "each parameter has a gradient and two moments");
    let pointers: Vec<_> = lists.into_iter().flatten().map(Tensor::as_ptr).collect();
    // SAFETY: the tensors are alive, and four times as many as said
    must(unsafe {
        simmim_fused_adamw(
            pointers.as_ptr(),
            count,
            step.number.as_ptr(),
            lr,
            step.betas.0,
            step.betas.1,
            weight_decay,
            step.eps,
            step.divisor.as_ptr(),
            step.found_inf.as_ptr(),
        )
    });
}

/// How an operator of libtorch was used.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorUse {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub count: u64,
    /// Seconds of the host in all, without those of operators that it called.
    pub seconds: f64,
}

/// Runs something and says which operators of libtorch it calls, in all threads.
pub fn count_operators<T>(run: impl FnOnce() -> T) -> (T, Vec<OperatorUse>) {
    let (mut handle, mut lines) = (0, null_mut());
    // SAFETY: the place is valid
    must(unsafe { simmim_start_counting(&mut handle) });
    let done = run();
    // SAFETY: the handle is that of the start
    must(unsafe { simmim_stop_counting(handle, &mut lines) });
    let text = take_text(lines);
    let used = |line: &str| {
        let [name, count, nanoseconds] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let seconds = nanoseconds.parse::<f64>().ok()? / 1e9;
        Some(OperatorUse { name: name.to_owned(), count: count.parse().ok()?, seconds })
    };
    (done, text.lines().filter_map(used).collect())
}

/// The version whose headers this crate was built with.
pub(crate) fn version_built() -> &'static str {
    // SAFETY: the shim returns a constant
    unsafe { CStr::from_ptr(simmim_version_built()) }.to_str().expect("a version is ASCII")
}

/// What the library that was loaded says of itself.
pub(crate) fn configuration() -> String {
    let mut text = null_mut();
    // SAFETY: the place is valid
    must(unsafe { simmim_configuration(&mut text) });
    take_text(text)
}

/// Loads a library that registers itself with libtorch; whether it is there.
pub(crate) fn load(library: &CStr) -> bool {
    // SAFETY: the libraries are libtorch's own, made to be loaded so
    unsafe { simmim_load(library.as_ptr()) }
}

/// Waits until an accelerator is done.
pub(crate) fn synchronize(index: usize) {
    // SAFETY: nothing is passed by pointer
    must(unsafe { simmim_synchronize(index as c_int) });
}

/// Bytes of an accelerator, and the most that were in use at a time, where libtorch says so.
pub(crate) fn memory(index: usize) -> Option<(u64, u64)> {
    let (mut total, mut peak) = (0, 0);
    // SAFETY: the places are valid
    result(unsafe { simmim_memory(index as c_int, &mut total, &mut peak) }).ok().map(|()| (total, peak))
}

/// The name of a GPU, where its driver says so.
pub(crate) fn name(index: usize) -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the place is as long as said
    let is_known = unsafe { simmim_name(index as c_int, name.as_mut_ptr().cast(), name.len() as c_int) };
    is_known.then(|| CStr::from_bytes_until_nul(&name).ok()?.to_str().ok().map(str::to_owned)).flatten()
}
