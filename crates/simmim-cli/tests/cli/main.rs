//! Tests of the command as a process: its exit code, its output, and the files it writes.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

mod bad_input;
mod bench;
mod collections;
mod continued;
mod data_folders;
mod disk_full;
mod embed;
mod event_files;
mod finetune;
#[cfg(feature = "hub")]
mod hub;
mod import;
mod memory;
mod options;
mod output;
mod own_files;
mod passed_over;
mod paths;
mod recipe_values;
mod resume;
mod safetensors;
mod same_result;
mod scores;
mod search;
mod shapes;
mod streams;
mod support;
mod targets;
mod tokenizer;
mod unreadable;
mod written_files;

/// The device that is tested, if it is not the default.
const DEVICE: Option<&str> = None;
