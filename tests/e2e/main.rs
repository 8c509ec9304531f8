//! The command line, end to end, against the real kernel: one module per noun.

#![allow(clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod files;
mod process;
mod run;
mod selfcheck;
mod streams;
