//! What is remembered of processes that the kernel killed for want of memory.

use serde::{Deserialize, Serialize};

/// How a container ran out of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomReport {
    /// Its limit, bytes.
    pub limit: u64,
    /// The most it used, bytes.
    pub peak: u64,
    /// Processes that the kernel killed.
    pub kills: u64,
    /// Those of them that are known, in the order of their end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<OomVictim>,
}

/// A process that the kernel killed for want of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomVictim {
    /// Its number on the host.
    pub pid: i32,
    /// Its name (`/proc/<pid>/comm`).
    pub name: String,
}
