//! OCI runtime.

pub mod capabilities;
pub mod copy_up;
pub mod diagnose;
mod program;
mod rooted;
pub mod user;
