//! eBPF (bpf(2), `include/uapi/linux/bpf.h`). Programs on cgroups: loading one that decides over devices, attaching it,
//! finding those that are attached. Programs on network namespaces that choose the socket for a packet, and the map of
//! sockets they choose from. What a program says is its maker's business.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_PROG_TYPE_SK_LOOKUP` (Linux 5.9).
const TYPE_SOCKET_LOOKUP: u32 = 30;
/// `BPF_MAP_TYPE_SOCKMAP`.
const TYPE_SOCKET_MAP: u32 = 15;
/// `BPF_SK_LOOKUP`, where a socket lookup program is attached.
const ATTACH_SOCKET_LOOKUP: u32 = 36;
/// `BPF_CGROUP_DEVICE`, where such a program is attached.
const ATTACH_DEVICE: u32 = 6;
/// Programs of the groups above run as well, and each has a veto; ours replaces none of theirs.
const ALLOW_MULTI: u32 = 1 << 1;
/// Takes the place of another program without a moment in between (Linux 5.6).
const REPLACE: u32 = 1 << 2;
/// `BPF_OBJ_NAME_LEN`, the terminating zero included.
const NAME_LENGTH: usize = 16;
/// `BPF_CGROUP_MAX_PROGS`: no group has more programs of a kind.
const MAX_PROGRAMS: usize = 64;
/// Bytes for what the verifier has to say.
const LOG_SIZE: usize = 64 * 1024;
/// Times a call is repeated that a signal interrupted.
const TRIES: u32 = 16;

/// Why a program was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct LoadError {
    /// What the system call returned.
    pub source: io::Error,
    /// The verifier's reasons; empty when it was not even asked.
    pub log: String,
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as it is used; the kernel takes the rest as zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LENGTH],
    interface: u32,
    /// Only types that can be attached in several places are asked for it (Linux 4.17).
    attach_type: u32,
}

/// That of `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Default)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

/// That of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// That of `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// That of `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// That of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// That of `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// That of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoByDescriptor {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_prog_info` up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; NAME_LENGTH],
}

/// Loads a program that decides over devices; the descriptor keeps it alive until it is attached.
/// `instructions` are `struct bpf_insn` of eight bytes each, in this machine's byte order. `name` is what
/// `bpftool prog` shows: letters, digits and `_`, fifteen at most.
///
/// # Errors
/// The kernel has no such programs, this process may not load any, or the verifier refuses this one and its log
/// says why.
pub fn load_device_program(instructions: &[u64], name: &str) -> Result<OwnedFd, LoadError> {
    load_program(TYPE_CGROUP_DEVICE, 0, instructions, name)
}

/// Loads a program that chooses the socket for a packet (`Documentation/bpf/prog_sk_lookup.rst`, Linux 5.9).
/// `instructions` and `name` as for [`load_device_program`].
///
/// # Errors
/// As [`load_device_program`].
pub fn load_lookup_program(instructions: &[u64], name: &str) -> Result<OwnedFd, LoadError> {
    load_program(TYPE_SOCKET_LOOKUP, ATTACH_SOCKET_LOOKUP, instructions, name)
}

fn load_program(kind: u32, attach_type: u32, instructions: &[u64], name: &str) -> Result<OwnedFd, LoadError> {
    let load = |log: &mut [u8]| load(kind, attach_type, instructions, name, log);
    let source = match load(&mut []) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Before Linux 5.11 programs count as locked memory of the user, 64 KiB by default: a dozen containers.
    if source.raw_os_error() == Some(libc::EPERM)
        && let Some(program) = with_unlimited_locked_memory(|| load(&mut []))
    {
        return Ok(program);
    }
    // Once more for the log, whose buffer would cost every start something. The first error stays: this one may be
    // that the log was too long (ENOSPC).
    let mut log = vec![0; LOG_SIZE];
    match load(&mut log) {
        Ok(program) => Ok(program),
        Err(_) => {
            let length = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            Err(LoadError { source, log: String::from_utf8_lossy(&log[..length]).trim_end().to_owned() })
        }
    }
}

fn load(kind: u32, attach_type: u32, instructions: &[u64], name: &str, log: &mut [u8]) -> io::Result<OwnedFd> {
    let license: &CStr = c"Apache-2.0";
    let mut attributes = Load {
        program_type: kind,
        attach_type,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    if !log.is_empty() {
        attributes.log_level = 1;
        attributes.log_size = log.len() as u32;
        attributes.log = log.as_mut_ptr() as u64;
    }
    let length = name.len().min(NAME_LENGTH - 1);
    attributes.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the instructions, the licence and the log outlive the call, and their lengths are given.
    unsafe { descriptor(PROG_LOAD, &mut attributes) }
}

/// Runs `action` with the limit on locked memory out of its way, and sets it back: the container's first process
/// inherits this one's limits.
fn with_unlimited_locked_memory<T>(action: impl FnOnce() -> io::Result<T>) -> Option<T> {
    let before = getrlimit(Resource::Memlock);
    setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).ok()?;
    let result = action();
    let _ = setrlimit(Resource::Memlock, before);
    result.ok()
}

/// Makes a map of `entries` sockets, found by their number. A socket leaves the map when it is closed.
///
/// # Errors
/// The kernel has no such maps, or this process may not make any.
pub fn socket_map(entries: u32) -> io::Result<OwnedFd> {
    let create = || {
        let mut attributes = Map { map_type: TYPE_SOCKET_MAP, key_size: 4, value_size: 4, entries };
        // SAFETY: no pointers inside.
        unsafe { descriptor(MAP_CREATE, &mut attributes) }
    };
    match create() {
        // As with programs: locked memory of the user before Linux 5.11.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => with_unlimited_locked_memory(create).ok_or(error),
        result => result,
    }
}

/// Puts a socket at a place of a map of sockets. TCP sockets must listen, UDP sockets be bound.
pub fn set_socket(map: BorrowedFd<'_>, place: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd() as u32;
    let mut attributes = Element {
        map: map.as_raw_fd() as u32,
        key: &raw const place as u64,
        value: &raw const value as u64,
        ..Element::default()
    };
    // SAFETY: key and value outlive the call and have the sizes that the map was made with.
    unsafe { call(MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Attaches a program that chooses sockets to the network namespace behind the descriptor `namespace`. It is detached
/// when the link that is returned is closed.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace; E2BIG when it has 64 such programs.
pub fn attach_lookup(namespace: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = Link {
        program: program.as_raw_fd() as u32,
        target: namespace.as_raw_fd() as u32,
        attach_type: ATTACH_SOCKET_LOOKUP,
        flags: 0,
    };
    // SAFETY: no pointers inside.
    unsafe { descriptor(LINK_CREATE, &mut attributes) }
}

/// Attaches `program` to the group behind the directory descriptor `cgroup`, in the place of `replaced` if there is
/// one. It is detached when the group is removed.
///
/// # Errors
/// EPERM when a group above forbids programs below it; EINVAL for a replacement before Linux 5.6.
pub fn attach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_DEVICE,
        flags: ALLOW_MULTI,
        replaced: 0,
    };
    if let Some(replaced) = replaced {
        attributes.flags |= REPLACE;
        attributes.replaced = replaced.as_raw_fd() as u32;
    }
    // SAFETY: no pointers inside.
    unsafe { call(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes `program` off the group.
pub fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: ATTACH_DEVICE,
        ..Attach::default()
    };
    // SAFETY: no pointers inside.
    unsafe { call(PROG_DETACH, &mut attributes) }.map(drop)
}

/// Ids of the device programs attached to this very group, in the order in which they run.
pub fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target: cgroup.as_raw_fd() as u32,
        attach_type: ATTACH_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: `ids` outlives the call and holds `count` numbers.
    unsafe { call(PROG_QUERY, &mut attributes) }?;
    Ok(ids[..MAX_PROGRAMS.min(attributes.count as usize)].to_vec())
}

/// Opens a program by its id.
pub fn open(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers inside.
    unsafe { descriptor(PROG_GET_FD_BY_ID, &mut ById { id, ..ById::default() }) }
}

/// The name that a program was loaded with.
pub fn name(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut info = Info::default();
    let mut attributes = InfoByDescriptor {
        descriptor: program.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` outlives the call and its length is given; all-zero lengths in it ask for no further buffers.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    let length = info.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LENGTH);
    Ok(String::from_utf8_lossy(&info.name[..length]).into_owned())
}

/// A command whose result is a new descriptor (close-on-exec, as all of bpf(2)).
///
/// # Safety
/// As for [`call`].
unsafe fn descriptor<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel has just made the descriptor, so nobody else owns it.
    unsafe { call(command, attributes).map(|number| OwnedFd::from_raw_fd(number as i32)) }
}

/// # Safety
/// `attributes` is laid out as the command's part of `union bpf_attr`, and every pointer in it is valid for what the
/// command reads and writes there.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    let mut tries = 0;
    loop {
        // SAFETY: the structure outlives the call and its size is given; what it points to is the caller's promise.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        tries += 1;
        // The verifier gives way to a signal.
        if error.raw_os_error() != Some(libc::EAGAIN) || tries == TRIES {
            return Err(error);
        }
    }
}
