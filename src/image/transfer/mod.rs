//! Images on their way between a registry and the store.

pub mod progress;
pub mod pull;
pub mod push;
