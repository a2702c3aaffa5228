//! Errors as exceptions, with their hints.

use pyo3::PyErr;
use pyo3::exceptions::{PyRuntimeError, PyValueError};

/// The exception for an error: `ValueError` if it is the caller's, else `RuntimeError`.
pub(crate) fn exception(error: &simmim::Error) -> PyErr {
    let hint = error.hint().map_or(String::new(), |hint| format!("\nhint: {hint}"));
    let text = format!("{error}{hint}");
    match error.is_users_fault() {
        true => PyValueError::new_err(text),
        false => PyRuntimeError::new_err(text),
    }
}

/// The exception for an argument that cannot be used.
pub(crate) fn wrong(what: String, hint: &str) -> PyErr {
    exception(&simmim::Error::Input { what, hint: Some(hint.into()) })
}
