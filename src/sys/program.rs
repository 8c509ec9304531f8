//! The running program as a file.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

/// The program itself, handed over so that nobody inside a container can ever write to it: a
/// detached read-only mount of the file, or a sealed memory copy where that is not to be had
/// (CVE-2019-5736: a container that is entered may reach the entering program through
/// `/proc/<pid>/exe`).
pub fn own_program() -> io::Result<OwnedFd> {
    super::mount::detached_read_only(c"/proc/self/exe").or_else(|_| sealed_copy_of_self())
}

fn sealed_copy_of_self() -> io::Result<OwnedFd> {
    let mut program = fs::File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Where vm.memfd_noexec is set a copy must ask to be executable (Linux 6.3).
    let copy = rustix::fs::memfd_create("mydocker", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("mydocker", flags))?;
    let mut copy = fs::File::from(copy);
    io::copy(&mut program, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy.into())
}
