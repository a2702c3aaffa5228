//! The command as its users run it: a process, its exit code, what it prints and what it leaves.

// all of this is test code, but clippy knows test functions only, not their helpers
#![allow(clippy::unwrap_used)]

mod bad_input;
mod disk_full;
mod output;
mod resume;
mod same_result;
mod shapes;
mod support;
