//! What images say of themselves: the names and documents of the OCI image specification, and Docker's of the same kind.

pub mod config;
pub mod digest;
pub mod manifest;
pub mod platform;
pub mod reference;
