//! Processes: who they are, how they are made.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// This boot's identity: process ids of another boot mean nothing. Empty when the kernel hides it.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
    })
}

/// Empties the umask of the calling thread alone: what it makes gets the very mode that it asks for. The thread's
/// root and working directory become its own too, as they are (`CLONE_FS`, unshare(2)).
pub fn unmask_thread() -> io::Result<()> {
    // SAFETY: no descriptor table is unshared, which is what other threads could be surprised by.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

/// When a process began, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)). `None`
/// when there is none, or only a zombie of it.
pub fn start_time(pid: i32) -> Option<u64> {
    // Raw bytes: a process may give itself a name that is not UTF-8.
    let stat = super::fd::read_small(format!("/proc/{pid}/stat").as_ref()).ok()?;
    // The command name stands in parentheses and may contain both spaces and parentheses.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether what is typed on a process's controlling terminal is meant for it: it is neither stopped nor
/// in the background (job control, credentials(7)). True as well when there is no such process.
pub fn has_terminal(pid: i32, start: u64) -> bool {
    let read = || {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
        // Fields 3, 5, 8 and 22 of proc_pid_stat(5).
        let (state, group, foreground) = (*fields.first()?, fields.get(2)?, fields.get(5)?);
        let same = fields.get(19)?.parse() == Ok(start);
        Some(!same || !(matches!(state, "T" | "t") || (group != foreground && *foreground != "-1")))
    };
    read().unwrap_or(true)
}

/// A handle on a process that is checked to be the one that began at `start_time`: the handle is
/// opened first and the time read afterwards, so a recycled number is never taken for the original.
pub fn open_verified(pid: i32, start: u64) -> Option<OwnedFd> {
    let handle = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (start_time(pid) == Some(start)).then_some(handle)
}

/// Sends a signal, real-time ones included, through a pidfd (pidfd_send_signal(2)).
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor that the borrow keeps open; no pointers but null.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How a process ended, as a shell reports it: its exit code, or 128 + the signal's number.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(status.map(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => 128 + signal,
        _ => 255,
    }))
}

/// From `linux/sched.h`; the libc crate's constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child to be made by [`spawn`].
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, as a descriptor (execveat(2) with AT_EMPTY_PATH).
    pub program: BorrowedFd<'a>,
    /// Its arguments; the environment is empty.
    pub arguments: &'a [CString],
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// cgroup v2 directory to be born into (CLONE_INTO_CGROUP).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Become descriptors 0, 1, 2, … of the child; all others close.
    pub files: &'a [BorrowedFd<'a>],
}

/// A child process and the handle on it.
#[derive(Debug)]
pub struct Child {
    /// Process id as the caller sees it.
    pub pid: i32,
    /// Handle, immune to reuse of the number.
    pub pidfd: OwnedFd,
}

/// Exit code of a child that could not execute the program; nothing else is reported.
pub const SPAWN_FAILED: i32 = 124;

/// clone3(2) and execveat(2). Between the two the child makes only prepared, async-signal-safe
/// calls: it may have been cloned while this process held any lock.
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Child> {
    // High copies first: a source must not be overwritten before it has been moved to its place.
    let count = spawn.files.len() as RawFd;
    let high: Vec<OwnedFd> = std::iter::once(&spawn.program)
        .chain(spawn.files)
        .map(|file| rustix::io::fcntl_dupfd_cloexec(file, count + 3))
        .collect::<Result<_, _>>()?;
    let mut argv: Vec<*const libc::c_char> = spawn.arguments.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp: [*const libc::c_char; 1] = [std::ptr::null()];

    children_wait_for_us();
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`: no flags, no stacks, no pointers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = spawn.namespaces | libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = spawn.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this behaves as fork(2): the child continues on a copy of this
    // stack. `arguments` and `pidfd` outlive the call. The child's branch below ends in exec or
    // _exit and touches only memory prepared before the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            for (target, file) in high[1..].iter().enumerate() {
                // SAFETY: async-signal-safe; both numbers are in range and the source is open.
                unsafe { libc::dup2(file.as_raw_fd(), target as RawFd) };
            }
            // SAFETY: async-signal-safe calls on pointers to null-terminated data prepared above,
            // which the copied address space still holds.
            unsafe {
                libc::syscall(libc::SYS_close_range, count, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
                libc::syscall(
                    libc::SYS_execveat,
                    high[0].as_raw_fd(),
                    c"".as_ptr(),
                    argv.as_ptr(),
                    envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                libc::_exit(SPAWN_FAILED)
            }
        }
        // SAFETY: the kernel stored a fresh descriptor that nobody else owns (CLONE_PIDFD).
        pid => Ok(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Whoever started this program with SIGCHLD ignored (sigaction(2): it is inherited) would have the
/// kernel throw away how its children end.
fn children_wait_for_us() {
    // SAFETY: SIG_DFL needs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The parent.
    Parent,
    /// The child, with everything the parent had.
    Child,
}

/// fork(2) of a single-threaded process. An error when other threads exist: their locks would stay
/// locked in the child for ever.
pub fn fork() -> io::Result<Fork> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork with {threads} threads")));
    }
    // SAFETY: single-threaded, checked above, so the child may go on to do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        // Nothing here may fail: the child is on its way already.
        _ => Ok(Fork::Parent),
    }
}

/// Like [`fork`], with the handle on the child. `None` in the child, which makes do with the parent's
/// values and never drops them.
pub fn fork_child() -> io::Result<Option<Child>> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork with {threads} threads")));
    }
    // SAFETY: single-threaded, checked above, so the child may go on to do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            // Our child, which nobody else reaps: the number is still its own, if it has ended already.
            let opened = Pid::from_raw(pid).map(|own| rustix::process::pidfd_open(own, PidfdFlags::empty()));
            match opened {
                Some(Ok(pidfd)) => Ok(Some(Child { pid, pidfd })),
                // Out of descriptors: it must not run on without anybody who could end it.
                _ => {
                    // SAFETY: `pid` is our child, not reaped yet; a null status is allowed.
                    unsafe {
                        libc::kill(pid, libc::SIGKILL);
                        libc::waitpid(pid, std::ptr::null_mut(), 0);
                    }
                    Err(io::Error::from_raw_os_error(libc::EMFILE))
                }
            }
        }
    }
}

/// Like [`fork`], but the child is nobody's: it never becomes a zombie of this process.
pub fn fork_orphan() -> io::Result<Fork> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("fork with {threads} threads")));
    }
    // SAFETY: single-threaded, checked above, so both children may go on to do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: as above; what forks has one thread.
        0 => match unsafe { libc::fork() } {
            0 => Ok(Fork::Child),
            _ => exit_now(0),
        },
        pid => {
            let mut status = 0;
            // SAFETY: `status` outlives the call; `pid` is our child, which ends at once.
            while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
            Ok(Fork::Parent)
        }
    }
}

/// Goes on in another process that is this one's sibling (CLONE_PARENT, clone(2)) and, unlike this
/// one, is in the PID namespace that was chosen for its children. `None` in the new process.
pub fn fork_sibling() -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`: no flags, no stacks, no pointers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // A sibling's exit signal is that of this process; the kernel refuses another.
    arguments.flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // SAFETY: without CLONE_VM this behaves as fork(2); `arguments` and `pidfd` outlive the call. The
    // only caller, init, is single-threaded, so no lock is held by a thread that is not there.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel stored a fresh descriptor that nobody else owns (CLONE_PIDFD).
        pid => Ok(Some(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })),
    }
}

/// Replaces this process (execve(2)). Returns only on failure.
pub fn exec(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        let mut list: Vec<*const libc::c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        list.push(std::ptr::null());
        list
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: null-terminated lists of null-terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Leaves at once, without running anything (for a forked shim whose caller's buffers and
/// destructors are not its own).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Moves this process, or for `CLONE_NEWPID` its future children, into namespaces of the process
/// behind `pidfd`, all at once (setns(2)).
pub fn enter_namespaces(pidfd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: plain system call on an open descriptor. The callers are single-threaded, as joining
    // a mount namespace demands; otherwise the kernel refuses.
    if unsafe { libc::setns(pidfd.as_raw_fd(), flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action and unblocks all: what the caller ignored (nohup, Rust's
/// own SIGPIPE) must not reach the container's command.
pub fn reset_signals() {
    // All-zero is SIG_DFL without flags in the kernel's `struct sigaction`. The system call itself,
    // because the library keeps the signals that it uses internally (32 and 33) to itself, and a
    // caller may have ignored those, too.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is read only; the kernel refuses SIGKILL and SIGSTOP.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8usize);
        }
    }
    // SAFETY: an empty set, initialised by sigemptyset, is valid for sigprocmask.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks `signals` and returns a descriptor that reads them (signalfd(2)), non-blocking.
pub fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; signalfd returns a fresh
    // descriptor that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

/// Reads one signal number from a [`signal_descriptor`]; `None` when there is none now.
pub fn read_signal(descriptor: BorrowedFd<'_>) -> Option<i32> {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut buffer) {
        // ssi_signo is the first field, a u32 (signalfd(2)).
        Ok(length) if length == buffer.len() => {
            Some(u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as i32)
        }
        _ => None,
    }
}

/// Which signals this process was started with ignored (nohup): they are not to be forwarded.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null new action only queries; `old` is valid for writes and read after success.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Dies by `signal` with its default action, as a program that was not watching for it.
pub fn die_by(signal: i32) {
    reset_signals();
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

/// Names this process for `ps` and `pstree`: the kernel's short name and the argument area, which
/// is overwritten in place (prctl(PR_SET_MM) would need CAP_SYS_RESOURCE).
pub fn set_title(title: &str) {
    if let Ok(name) = CString::new(title.chars().take(15).collect::<String>()) {
        let _ = rustix::thread::set_name(&name);
    }
    let Some((start, end)) = argument_area() else { return };
    let room = end - start;
    let length = title.len().min(room - 1);
    // SAFETY: the kernel maps [start, end) writable on this process's stack for its whole life
    // (proc(5), arg_start and env_end); the standard library has copied what it needs by the time
    // a program renames itself, and this process reads neither its arguments nor its environment
    // from there afterwards.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, room);
        std::ptr::copy_nonoverlapping(title.as_ptr(), start as *mut u8, length);
    }
}

/// Start and end of the memory that holds the argument and, right behind it, the environment
/// strings (fields 48 to 51 of `/proc/self/stat`). When the last byte of the arguments is
/// overwritten the kernel shows what follows up to the first zero byte (proc(5), cmdline).
fn argument_area() -> Option<(usize, usize)> {
    let stat = fs::read("/proc/self/stat").ok()?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().skip(45);
    let numbers: Vec<usize> = fields.take(4).map_while(|field| field.parse().ok()).collect();
    let &[start, end, environment, environment_end] = numbers.as_slice() else { return None };
    let end = if environment == end { environment_end } else { end };
    (start != 0 && end > start).then_some((start, end))
}

/// Gives back what a process that will mostly wait does not need: free memory of the allocator,
/// and the pages of our own code, which come back from the page cache as they are used.
pub fn trim_memory() {
    unsafe extern "C" {
        // Set by the linker (ld(1)): the first byte of the program and the first behind its code.
        static __executable_start: u8;
        static etext: u8;
    }
    // SAFETY: malloc_trim has no preconditions. Between the two symbols lie the read-only segments
    // (headers, constants, code), mapped from the file and never written, so that a dropped page is
    // read again unchanged; relocated data lies behind `etext`.
    unsafe {
        libc::malloc_trim(0);
        let page = 4096;
        let start = (&raw const __executable_start as usize) & !(page - 1);
        let end = (&raw const etext as usize) & !(page - 1);
        libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
    }
}

/// Ignores a signal from here on.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN needs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// A session keyring of our own (keyrings(7)): the caller's, with its keys, is inherited otherwise.
pub fn new_session_keyring() -> io::Result<()> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: joins an anonymous keyring, which takes a null name.
    if unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, none) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // A kernel without keys, or a filter that refuses the call to us and to the container alike.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        error => Err(error),
    }
}

/// A cgroup namespace rooted at the cgroups this process is in (cgroup_namespaces(7)).
pub fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: plain system call without pointers; it concerns this single-threaded process alone.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
