//! The command as its users run it: a process, its exit code, what it prints and what it leaves.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

mod bad_input;
mod bench;
mod disk_full;
mod finetune;
mod output;
mod resume;
mod same_result;
mod shapes;
mod support;
mod targets;
mod tokenizer;
