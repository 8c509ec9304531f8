//! Finding the container's command, and saying why it could not be executed: one line of cause, one of cure.
//!
//! execve(2) has a dozen causes for `ENOENT` and `EACCES` alone; while the root is still at hand they can be told
//! apart. Everything is looked at below a held descriptor of the root and read within bounds, because the image
//! controls all of it. The class gives Docker's exit code: 127 for what is not there (an interpreter included),
//! 126 for what is there and cannot run.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, StatVfsMountFlags, fstat, fstatvfs};
use rustix::io::Errno;

use super::program::{Elf, Program};
use super::rooted;
use crate::error::{Class, Failure};

/// Interpreters followed; the kernel gives up after as many (`bprm_execve`, ELOOP).
const INTERPRETERS: usize = 5;

/// A command and where it is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The container's root; `/` once init has changed into it.
    pub root: BorrowedFd<'a>,
    /// Working directory, absolute inside the root.
    pub cwd: &'a str,
    /// The command as given.
    pub argv0: &'a str,
    /// The value of `PATH` in the container's environment.
    pub path: &'a str,
}

struct Found {
    /// As execve is to be told: absolute, or relative to the working directory.
    path: PathBuf,
    /// `O_PATH` descriptor of the file.
    file: OwnedFd,
}

/// A cause and its cure.
type Reason = (String, String);

/// The path to execute, looked up as execvp(3) does: a command with a slash is taken as it is, any other is the first
/// executable file of that name along `PATH`. Best called with the command's final user and groups, because what may be
/// executed depends on them.
///
/// # Errors
/// Class [`Class::CommandNotFound`] when there is no such file, [`Class::NotExecutable`] when there is one that must
/// not be executed; in Docker's words.
pub fn find_in_path(lookup: &Lookup<'_>) -> Result<CString, Failure> {
    let found = lookup.find()?;
    CString::new(found.path.into_os_string().into_vec())
        .map_err(|_| Failure::new(Class::CommandNotFound, lookup.headed("invalid argument: a zero byte in its name")))
}

/// Why execve failed with `errno` on what [`find_in_path`] found.
pub fn explain_exec(lookup: &Lookup<'_>, errno: Errno) -> Failure {
    let found = match lookup.find() {
        Ok(found) => found,
        Err(failure) => return failure,
    };
    let class = match errno {
        Errno::NOENT | Errno::NOTDIR => Class::CommandNotFound,
        Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::LIBBAD | Errno::ISDIR | Errno::TXTBSY | Errno::LOOP => {
            Class::NotExecutable
        }
        _ => Class::Engine,
    };
    let mut failure = Failure::new(class, lookup.headed(text_of(errno)));
    let reason = match errno {
        Errno::NOENT => lookup.what_is_missing(&found, INTERPRETERS),
        Errno::ACCESS | Errno::PERM => lookup.what_is_denied(&found, INTERPRETERS),
        Errno::NOEXEC | Errno::LIBBAD => lookup.what_is_wrong_inside(&found, INTERPRETERS),
        _ => general(errno),
    };
    if let Some((cause, hint)) = reason {
        failure.causes.push(cause);
        failure.hint = Some(hint);
    }
    failure
}

impl Lookup<'_> {
    fn headed(&self, reason: &str) -> String {
        format!("exec: {:?}: {reason}", self.argv0)
    }

    /// Opens a path as the command would see it.
    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        rooted::open(self.root, &Path::new(self.cwd).join(path), OFlags::PATH)
    }

    fn read(&self, path: &Path) -> Option<Program> {
        let file: File = rooted::open_regular(self.root, &Path::new(self.cwd).join(path)).ok()?;
        Program::of(&file).ok()
    }

    fn find(&self) -> Result<Found, Failure> {
        if self.argv0.contains('/') {
            let path = PathBuf::from(self.argv0);
            let file = self.open(&path).map_err(|errno| self.no_file(errno))?;
            return match refusal(&file) {
                None => Ok(Found { path, file }),
                Some(reason) => Err(self.denied(reason)),
            };
        }
        let mut refused = None;
        // An empty PATH has no entries; an empty entry of one that is not stands for the working directory.
        let entries = self.path.split(':').filter(|_| !self.path.is_empty() && !self.argv0.is_empty());
        for entry in entries {
            let path = Path::new(if entry.is_empty() { "." } else { entry }).join(self.argv0);
            match self.open(&path) {
                Ok(file) => match refusal(&file) {
                    None => return Ok(Found { path, file }),
                    // A directory of that name is nothing to report, a file without the x bit is.
                    Some(reason) if is_directory(&file) => drop(reason),
                    Some((cause, hint)) => {
                        refused.get_or_insert_with(|| (format!("{}: {cause}", path.display()), hint));
                    }
                },
                Err(Errno::ACCESS) => {
                    refused.get_or_insert_with(|| {
                        (
                            format!("{}: a directory on its path may not be searched by this user", path.display()),
                            "run as another user (-u), or chmod the directories in the image".to_owned(),
                        )
                    });
                }
                Err(_) => {}
            }
        }
        Err(match refused {
            Some(reason) => self.denied(reason),
            None => Failure::new(Class::CommandNotFound, self.headed("executable file not found in $PATH"))
                .with_hint(self.cure_for_not_found()),
        })
    }

    fn denied(&self, (cause, hint): Reason) -> Failure {
        let mut failure = Failure::new(Class::NotExecutable, self.headed(text_of(Errno::ACCESS))).with_hint(hint);
        failure.causes.push(cause);
        failure
    }

    /// A command with a slash that cannot be opened.
    fn no_file(&self, errno: Errno) -> Failure {
        let denied = matches!(errno, Errno::ACCESS | Errno::LOOP);
        let class = if denied { Class::NotExecutable } else { Class::CommandNotFound };
        let mut failure = Failure::new(class, self.headed(&format!("stat {}: {}", self.argv0, text_of(errno))));
        failure.hint = Some(match errno {
            Errno::ACCESS => "run as another user (-u), or chmod the directories above it in the image".to_owned(),
            Errno::LOOP => "its symbolic links lead in a circle; correct them in the image".to_owned(),
            _ => self.cure_for_not_found(),
        });
        if errno == Errno::NOENT
            && let Some(target) = self.dangling_link()
        {
            failure.causes.push(format!("it is a symbolic link to {target}, which does not exist in the image"));
        }
        failure
    }

    fn dangling_link(&self) -> Option<String> {
        let path = Path::new(self.cwd).join(self.argv0);
        let link = rooted::open(self.root, &path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let target = rustix::fs::readlinkat(link, "", Vec::new()).ok()?;
        Some(printable(target.as_bytes()))
    }

    fn cure_for_not_found(&self) -> String {
        if self.argv0.is_empty() {
            "the command is an empty word; give one, or leave it out to run the image's own".into()
        } else if self.argv0.contains(char::is_whitespace) {
            "the command is one word with blanks in it; give its words separately, or run: sh -c '…'".into()
        } else if self.argv0.starts_with('-') {
            "options for mydocker come before the image's name".into()
        } else if self.argv0.contains('/') {
            "check the path; the image has no such file".into()
        } else {
            format!("install it in the image, or give its path; PATH is {:?}", self.path)
        }
    }

    /// `ENOENT` on a file that exists: its interpreter or loader does not.
    fn what_is_missing(&self, found: &Found, depth: usize) -> Option<Reason> {
        let depth = depth.checked_sub(1)?;
        let next = match self.read(&found.path)? {
            Program::Script(interpreter) => {
                if let Some(name) = interpreter.strip_suffix(b"\r") {
                    return Some((
                        format!(
                            "the first line of {} ends in a carriage return (CRLF line ends), so its interpreter would be {:?}",
                            found.path.display(),
                            printable(name) + "\r",
                        ),
                        format!("save it with Unix line ends: sed -i 's/\\r$//' {}", found.path.display()),
                    ));
                }
                if matches!(self.open(Path::new(OsStr::from_bytes(&interpreter))), Err(Errno::NOENT | Errno::NOTDIR)) {
                    let interpreter = printable(&interpreter);
                    return Some((
                        format!("its interpreter {interpreter} does not exist in the image"),
                        format!("install {interpreter} in the image, or change the script's first line"),
                    ));
                }
                interpreter
            }
            Program::Elf(elf) => {
                // The kernel knows an emulator for it, by a path that means nothing inside.
                if let Some((cause, _)) = wrong_machine(&elf).filter(|_| !elf.is_compatible()) {
                    return Some((
                        format!("{} {cause}, and its emulator is not in the image", found.path.display()),
                        "use an image for this machine, or register the emulator in binfmt_misc with flag F".into(),
                    ));
                }
                let loader = elf.loader.as_ref()?;
                match self.open(Path::new(OsStr::from_bytes(loader))) {
                    Err(Errno::NOENT | Errno::NOTDIR) => return Some(self.no_loader(&printable(loader))),
                    _ => return None,
                }
            }
            _ => return None,
        };
        self.what_is_missing(&self.interpreter(next)?, depth)
    }

    fn interpreter(&self, name: Vec<u8>) -> Option<Found> {
        let path = PathBuf::from(std::ffi::OsString::from_vec(name));
        let file = self.open(&path).ok()?;
        Some(Found { path, file })
    }

    fn no_loader(&self, loader: &str) -> Reason {
        let cause = format!("its ELF loader {loader} does not exist in the image");
        let exists = |paths: &[&str]| paths.iter().any(|path| self.open(Path::new(path)).is_ok());
        let (has_musl, has_glibc) = (exists(&MUSL_LOADERS), exists(&GLIBC_LOADERS));
        let hint = if has_musl && !loader.contains("ld-musl") {
            "the program needs glibc and the image has musl (Alpine): build it for musl or statically, or use an image \
             with glibc (debian)"
        } else if has_glibc && loader.contains("ld-musl") {
            "the program needs musl and the image has glibc: build it for glibc or statically, or use an image with \
             musl (alpine)"
        } else if !has_musl && !has_glibc {
            "the image has no C library: link the program statically (CGO_ENABLED=0, -static), or start from an image \
             that has one"
        } else {
            "install the C library of the program's architecture in the image, or link it statically"
        };
        (cause, hint.to_owned())
    }

    /// `EACCES` on a file that may be executed itself: the mount or the interpreter forbids it.
    fn what_is_denied(&self, found: &Found, depth: usize) -> Option<Reason> {
        let depth = depth.checked_sub(1)?;
        let name = found.path.display();
        if let Some((cause, hint)) = refusal(&found.file) {
            return Some((format!("{name}: {cause}"), hint));
        }
        if fstatvfs(&found.file).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
            return Some((
                format!("{name} lies on a file system that is mounted noexec"),
                "mount it with exec (--tmpfs PATH:exec), or put the program elsewhere".into(),
            ));
        }
        let next = match self.read(&found.path)? {
            Program::Script(interpreter) => interpreter,
            Program::Elf(elf) => elf.loader?,
            _ => return None,
        };
        match self.open(Path::new(OsStr::from_bytes(&next))) {
            Err(Errno::ACCESS) => Some((
                format!("its interpreter {} lies where this user may not look", printable(&next)),
                "run as another user (-u), or chmod the directories above it in the image".into(),
            )),
            _ => self.what_is_denied(&self.interpreter(next)?, depth),
        }
    }

    /// `ENOEXEC`: the kernel has no loader for what the file, or its interpreter, contains.
    fn what_is_wrong_inside(&self, found: &Found, depth: usize) -> Option<Reason> {
        let depth = depth.checked_sub(1)?;
        let name = found.path.display();
        let reason = |cause: String, hint: &str| Some((format!("{name} {cause}"), hint.to_owned()));
        match self.read(&found.path)? {
            Program::Empty => reason("is empty".into(), "it was not written when the image was built; build it again"),
            Program::Text => reason(
                "is a text file without a \"#!\" line".into(),
                "begin it with a line that names its interpreter, such as #!/bin/sh, or run: sh FILE",
            ),
            Program::BadScript => reason(
                "has a \"#!\" line without a usable interpreter".into(),
                "make its first line #!/bin/sh or another interpreter, within 256 bytes",
            ),
            Program::MarkedScript => {
                reason("begins with a byte order mark, before \"#!\"".into(), "save it as UTF-8 without a mark")
            }
            Program::Foreign(system) => reason(format!("is a program for {system}"), "build it for Linux"),
            Program::BadElf => {
                reason("is a damaged or cut off ELF file".into(), "copy it into the image again, or build it again")
            }
            Program::Elf(elf) => wrong_elf(&elf).and_then(|(cause, hint)| reason(cause, &hint)),
            Program::Data => reason(
                "is no program in a format that Linux knows".into(),
                "look at what it is: file PATH; an archive has to be unpacked first",
            ),
            Program::Script(interpreter) => self.what_is_wrong_inside(&self.interpreter(interpreter)?, depth),
        }
    }
}

const MUSL_LOADERS: [&str; 4] =
    ["/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1", "/lib/ld-musl-armhf.so.1", "/lib/ld-musl-riscv64.so.1"];
const GLIBC_LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
];

fn wrong_elf(elf: &Elf) -> Option<Reason> {
    if elf.unlinked {
        return Some((
            "is an object file, compiled and not linked".into(),
            "link it into a program (cc without -c)".into(),
        ));
    }
    if let Some(reason) = wrong_machine(elf) {
        return Some(reason);
    }
    (u32::from(elf.bits) != usize::BITS).then(|| {
        let cause = format!("is a {}-bit program, which this kernel does not run", elf.bits);
        (cause, format!("build it for {} bits", usize::BITS))
    })
}

fn wrong_machine(elf: &Elf) -> Option<Reason> {
    let host = rustix::system::uname();
    let host = host.machine().to_string_lossy();
    (!elf.is_for(&host)).then(|| {
        (
            format!("is a {}-bit program for {}, this machine is {host}", elf.bits, elf.machine_name()),
            "use an image for this machine, or register an emulator (qemu-user-static with binfmt_misc)".into(),
        )
    })
}

fn is_directory(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Why this process may not execute the file, judged by its type and permission bits. Access control lists, mount
/// options and a root without `CAP_DAC_OVERRIDE` are left for execve to refuse.
fn refusal(file: &OwnedFd) -> Option<Reason> {
    let stat = fstat(file).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Some(("is a directory".into(), "name a program inside it".into())),
        _ => return Some(("is not a regular file".into(), "name a program".into())),
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o111 == 0 {
        return Some((
            format!("its mode {mode:04o} has no execute permission"),
            "chmod +x it in the image (COPY --chmod=755)".into(),
        ));
    }
    let uid = rustix::process::geteuid().as_raw();
    let in_group = || {
        let gid = rustix::process::getegid().as_raw();
        gid == stat.st_gid
            || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == stat.st_gid))
    };
    let allowed = match uid {
        0 => true,
        _ if uid == stat.st_uid => mode & 0o100 != 0,
        _ if in_group() => mode & 0o010 != 0,
        _ => mode & 0o001 != 0,
    };
    (!allowed).then(|| {
        (
            format!("its mode {mode:04o} and owner {}:{} do not let user {uid} execute it", stat.st_uid, stat.st_gid),
            "run as another user (-u), or chmod a+x it in the image".into(),
        )
    })
}

fn general(errno: Errno) -> Option<Reason> {
    let (cause, hint) = match errno {
        Errno::TOOBIG => ("its arguments and environment are too large", "pass long lists in a file"),
        Errno::NOMEM => ("the kernel has no memory for it", "raise the memory limit (-m), or free memory on the host"),
        Errno::TXTBSY => ("a process has the file open for writing", "close it before the command is run"),
        Errno::LOOP => ("its interpreter is a script, and that one's again, too often", "name a program in \"#!\""),
        Errno::AGAIN => ("the user's limit of processes is reached", "raise it (--ulimit nproc=…)"),
        Errno::MFILE | Errno::NFILE => ("too many files are open", "raise the limit (--ulimit nofile=…)"),
        _ => return None,
    };
    Some((cause.to_owned(), hint.to_owned()))
}

/// The C library's words, as Docker prints them.
fn text_of(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "no such file or directory",
        Errno::NOTDIR => "not a directory",
        Errno::ACCESS => "permission denied",
        Errno::PERM => "operation not permitted",
        Errno::NOEXEC => "exec format error",
        Errno::LIBBAD => "accessing a corrupted shared library",
        Errno::ISDIR => "is a directory",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::TOOBIG => "argument list too long",
        Errno::NOMEM => "cannot allocate memory",
        Errno::TXTBSY => "text file busy",
        Errno::NAMETOOLONG => "file name too long",
        Errno::INVAL => "invalid argument",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::MFILE => "too many open files",
        Errno::NFILE => "too many open files in system",
        Errno::IO => "input/output error",
        _ => "the kernel refused",
    }
}

/// A name out of the image, fit for a terminal and bounded.
fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(256)]);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
