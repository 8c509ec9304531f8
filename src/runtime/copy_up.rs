//! stub
use std::os::fd::BorrowedFd;
/// x
pub fn is_empty(_: BorrowedFd<'_>) -> anyhow::Result<bool> { Ok(false) }
/// x
pub fn copy_tree(_: BorrowedFd<'_>, _: BorrowedFd<'_>) -> anyhow::Result<()> { Ok(()) }
