//! The module `simmim._simmim`, which the Python package `simmim` is made of: the command, an encoder, and masks.
//!
//! Arrays cross as bytes with a shape, so that no version of NumPy is part of the module; `python/simmim/__init__.py` makes
//! arrays of them and checks what users give.

#![deny(unsafe_code)]

mod encoder;
mod error;
mod mask;
mod pictures;

use pyo3::prelude::{Bound, PyModule, PyModuleMethods, PyResult, Python, pyfunction, pymodule, wrap_pyfunction};
use std::ffi::OsString;

/// Runs the command with these arguments, the first of which is its name; returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| simmim_cli::main(arguments).code())
}

#[pymodule]
fn _simmim(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(mask::mask, module)?)?;
    module.add_class::<encoder::Encoder>()
}
