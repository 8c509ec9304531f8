//! The command line, end to end, against the real kernel: one module per noun.

#![allow(clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod exec;
mod files;
mod isolation;
mod lifecycle;
mod logs;
mod naming;
mod process;
mod query;
mod run;
mod selfcheck;
mod streams;
mod terminal;
