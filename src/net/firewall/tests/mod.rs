//! `texts` are pure; the others work on the kernel, each in network namespaces of its own.

mod reach;
mod texts;
mod upkeep;
pub mod world;
