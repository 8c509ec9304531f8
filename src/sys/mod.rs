//! The kernel: all `unsafe` code and raw system calls of the program. Safe, owned types go out.

#![allow(unsafe_code)]

pub mod process;
pub mod signal;
