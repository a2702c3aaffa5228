//! The command on libtorch: the tests of training, resuming and fine-tuning that run on the CPU backend too, and what is
//! libtorch's own.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

#[path = "../cli/event_files.rs"]
mod event_files;
#[path = "../cli/finetune.rs"]
mod finetune;
mod own;
#[path = "../cli/resume.rs"]
mod resume;
#[path = "../cli/support.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

/// The device that is tested.
const DEVICE: Option<&str> = Some("libtorch-cpu");
