//! The command line, end to end, against the real kernel: one module per noun.

#![allow(clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod diagnosis;
mod events;
mod exec;
mod explain;
mod files;
mod forms;
mod image;
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
mod why;
