//! Storage of containers: volumes.

pub mod volume;
