//! Acting as somebody else where files are concerned, for one closure.

use std::io;

/// A user and the group of theirs that new files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Runs `act` with the file system identity of `who` (setfsuid(2)): what the user may not read or write
/// fails, also through symbolic links that they laid, and what is made is theirs. Needs root.
///
/// It runs in a thread of its own, since the raw calls change nothing but the calling thread; that thread
/// ends with them, so there is no way back to forget.
///
/// # Errors
/// The kernel did not take the identity on; `act` was not run then.
pub fn act_as<T: Send>(who: Identity, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            take_on(who)?;
            Ok(act())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn take_on(who: Identity) -> io::Result<()> {
    // SAFETY: no pointers are passed: an empty list of groups. The raw system call is the thread's alone,
    // unlike the C library's, which changes all threads.
    if unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The group first: without the user's rights it can no longer be changed.
    for (call, id) in [(libc::SYS_setfsgid, who.gid), (libc::SYS_setfsuid, who.uid)] {
        // SAFETY: plain numbers go in and come out.
        unsafe { libc::syscall(call, id) };
        // These calls report no failure; asking with an id that nobody has tells the present one.
        // SAFETY: as above; an invalid id changes nothing.
        let now = unsafe { libc::syscall(call, u32::MAX) };
        if now != libc::c_long::from(id) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn files_are_made_as_the_user_and_only_where_they_may() {
        let directory = tempfile::tempdir().unwrap();
        let who = Identity { uid: 12345, gid: 54321 };
        let path = directory.path().join("x");
        let denied = act_as(who, || fs::write(&path, "")).unwrap();
        assert_eq!(denied.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        act_as(who, || fs::write(&path, "")).unwrap().unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid()), (12345, 54321));
        fs::write(directory.path().join("y"), "").unwrap();
        assert_eq!(fs::metadata(directory.path().join("y")).unwrap().uid(), 0, "the caller's thread is as it was");
    }
}
