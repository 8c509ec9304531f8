//! `mydocker`: a container engine with Docker's command line and no daemon.
//!
//! ```text
//! L5 front ends   cli                                parse, render, map errors to exit codes
//! L4 engine       engine                             the only place that knows all mechanisms
//! L3 record       container                          what a container is, on disk
//! L2 mechanisms   runtime  cgroup  net  image  storage   never import each other (runtime may use cgroup)
//! L1 base         error  layout  store  settings  id
//! L0 kernel       sys                                all `unsafe` and raw syscalls
//! ```
//!
//! Imports go down only and never in circles; `tests/architecture` holds that. `docs/architecture.md` walks through
//! one `run` from argv to exec.

pub mod cgroup;
pub mod cli;
pub mod container;
pub mod engine;
pub mod error;
pub mod id;
pub mod image;
pub mod layout;
pub mod net;
pub mod runtime;
pub mod settings;
pub mod storage;
pub mod store;
pub mod sys;
