//! OCI runtime.

pub mod capabilities;
pub mod diagnose;
mod program;
mod rooted;
pub mod user;
