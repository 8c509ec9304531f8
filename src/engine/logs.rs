//! The container's log: Docker's json-file format, written by the shim, read by `logs`.
