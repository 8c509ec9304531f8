//! OCI runtime.

pub mod capabilities;
mod rooted;
pub mod user;
