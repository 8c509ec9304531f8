//! The kernel: all `unsafe` code of the program, and the raw system calls that no crate offers in
//! safe form. Safe, owned types go out; nothing here knows what a container is.

#![allow(unsafe_code)]

pub mod bpf;
pub mod channel;
pub mod clock;
pub mod conntrack;
pub mod fd;
pub mod identity;
pub mod inet_diag;
pub mod mount;
mod netlink_request;
pub mod network;
pub mod process;
pub mod procfs;
pub mod program;
pub mod random;
pub mod signal;
pub mod tree;
pub mod tty;
