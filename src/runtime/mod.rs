//! OCI runtime.
