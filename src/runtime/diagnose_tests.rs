//! Against directories made up as images; where the kernel's own verdict can be had, it is asked for.

use super::*;
use crate::runtime::program::tests::elf64;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

const X86_64: u16 = 62;
const AARCH64: u16 = 183;

struct Image {
    dir: tempfile::TempDir,
    root: File,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "usr/bin", "app"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let root = File::open(dir.path()).unwrap();
        Image { dir, root }
    }

    fn put(&self, path: &str, mode: u32, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn lookup<'a>(&'a self, argv0: &'a str) -> Lookup<'a> {
        Lookup { root: self.root.as_fd(), cwd: "/app", argv0, path: "/usr/bin:/bin" }
    }

    fn find(&self, argv0: &str) -> Result<String, Failure> {
        find_in_path(&self.lookup(argv0)).map(|path| path.into_string().unwrap())
    }

    fn explain(&self, argv0: &str, errno: Errno) -> Failure {
        explain_exec(&self.lookup(argv0), errno)
    }

    /// Executes an absolute path below a chroot of the image and explains what the kernel says.
    fn run(&self, argv0: &str) -> Failure {
        let error = std::process::Command::new("chroot").arg(self.dir.path()).arg(argv0).output().unwrap();
        let text = String::from_utf8_lossy(&error.stderr).into_owned();
        let known = [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC];
        let errno = known.iter().find(|errno| text.to_lowercase().contains(text_of(**errno)));
        self.explain(argv0, *errno.unwrap_or_else(|| panic!("{text}")))
    }
}

fn assert_says(failure: &Failure, class: Class, parts: &[&str]) {
    let text = format!("{failure} | {}", failure.hint.as_deref().unwrap_or("no hint"));
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn commands_are_found_along_the_path() {
    let image = Image::new();
    image.put("bin/sh", 0o755, "x").put("usr/bin/tool", 0o644, "x").put("bin/tool", 0o755, "x");
    image.put("app/run", 0o755, "x");
    fs::create_dir(image.dir.path().join("usr/bin/sh")).unwrap();
    assert_eq!(image.find("sh").unwrap(), "/bin/sh");
    assert_eq!(image.find("tool").unwrap(), "/bin/tool");
    assert_eq!(image.find("./run").unwrap(), "./run");
    assert_eq!(image.find("../bin/sh").unwrap(), "../bin/sh");
    assert_eq!(image.find("/bin/sh").unwrap(), "/bin/sh");
    let here = Lookup { path: ":/bin", ..image.lookup("run") };
    assert_eq!(find_in_path(&here).unwrap().to_str().unwrap(), "./run");
    assert!(find_in_path(&Lookup { path: "", ..image.lookup("run") }).is_err());
}

#[test]
fn what_is_not_there_is_said_in_dockers_words() {
    let image = Image::new();
    let failure = image.find("foo").unwrap_err();
    assert_says(&failure, Class::CommandNotFound, &["PATH is \"/usr/bin:/bin\""]);
    assert_eq!(failure.to_string(), "exec: \"foo\": executable file not found in $PATH");
    let failure = image.find("/x").unwrap_err();
    assert_says(&failure, Class::CommandNotFound, &[]);
    assert_eq!(failure.to_string(), "exec: \"/x\": stat /x: no such file or directory");
    assert_says(&image.find("").unwrap_err(), Class::CommandNotFound, &["executable file not found", "empty word"]);
    assert_says(&image.find("echo hi").unwrap_err(), Class::CommandNotFound, &["sh -c"]);
    assert_says(&image.find("-it").unwrap_err(), Class::CommandNotFound, &["before the image"]);
    assert_says(&image.find("a\0b").unwrap_err(), Class::CommandNotFound, &["not found"]);
}

#[test]
fn links_stay_inside_the_image_and_dangling_ones_are_named() {
    let image = Image::new();
    image.put("bin/busybox", 0o755, "x");
    symlink("/bin/busybox", image.dir.path().join("bin/sh")).unwrap();
    symlink("/etc/hostname", image.dir.path().join("bin/out")).unwrap();
    symlink("loop", image.dir.path().join("bin/loop")).unwrap();
    assert_eq!(image.find("sh").unwrap(), "/bin/sh");
    let failure = image.find("/bin/out").unwrap_err();
    assert_says(&failure, Class::CommandNotFound, &["symbolic link to /etc/hostname"]);
    assert_says(&image.find("/bin/loop").unwrap_err(), Class::NotExecutable, &["circle"]);
    assert_says(&image.find("/bin/busybox/x").unwrap_err(), Class::CommandNotFound, &["not a directory"]);
}

#[test]
fn files_that_must_not_be_executed_are_126() {
    let image = Image::new();
    image.put("bin/plain", 0o644, "x");
    let failure = image.find("plain").unwrap_err();
    assert_says(&failure, Class::NotExecutable, &["permission denied: /bin/plain: its mode 0644", "chmod +x"]);
    assert_says(&image.find("/bin/plain").unwrap_err(), Class::NotExecutable, &["permission denied"]);
    assert_says(&image.find("/app").unwrap_err(), Class::NotExecutable, &["is a directory"]);
    // A directory in PATH that has the command's name is not the command.
    fs::create_dir(image.dir.path().join("bin/dir")).unwrap();
    assert_says(&image.find("dir").unwrap_err(), Class::CommandNotFound, &["not found in $PATH"]);
    nix::unistd::mkfifo(&image.dir.path().join("bin/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_says(&image.find("/bin/fifo").unwrap_err(), Class::NotExecutable, &["not a regular file"]);
}

#[test]
fn interpreters_that_are_missing_are_named() {
    let image = Image::new();
    image.put("app/run", 0o755, "#!/bin/bash -e\necho\n");
    assert_says(&image.run("/app/run"), Class::CommandNotFound, &["interpreter /bin/bash", "install /bin/bash"]);
    image.put("app/dos", 0o755, "#!/bin/sh\r\necho\r\n").put("bin/sh", 0o755, elf64(X86_64, "/lib/ld.so"));
    assert_says(&image.run("/app/dos"), Class::CommandNotFound, &["carriage return", "sed -i 's/\\r$//' /app/dos"]);
    // The interpreter is there, its own loader is not.
    image.put("app/deep", 0o755, "#!/bin/sh\n");
    assert_says(&image.explain("/app/deep", Errno::NOENT), Class::CommandNotFound, &["ELF loader /lib/ld.so"]);
    // Controls in a name chosen by the image never reach the terminal.
    image.put("app/evil", 0o755, b"#!/bin/\x1b[31m\n");
    assert!(!image.run("/app/evil").to_string().contains('\x1b'));
}

#[test]
fn an_emulator_that_is_missing_is_told_of() {
    let image = Image::new();
    let foreign = if host_is_arm() { X86_64 } else { AARCH64 };
    image.put("app/elf", 0o755, elf64(foreign, ""));
    let failure = image.explain("/app/elf", Errno::NOENT);
    assert_says(&failure, Class::CommandNotFound, &["its emulator is not in the image", "binfmt_misc"]);
}

fn host_is_arm() -> bool {
    rustix::system::uname().machine().to_bytes() == b"aarch64"
}

#[test]
fn a_missing_loader_tells_of_the_c_library() {
    let image = Image::new();
    image.put("app/prog", 0o755, elf64(X86_64, "/lib64/ld-linux-x86-64.so.2"));
    let explain = || image.explain("/app/prog", Errno::NOENT);
    assert_says(&explain(), Class::CommandNotFound, &["/lib64/ld-linux-x86-64.so.2", "no C library", "statically"]);
    image.put("lib/ld-musl-x86_64.so.1", 0o755, "");
    assert_says(&explain(), Class::CommandNotFound, &["needs glibc and the image has musl"]);

    let image = Image::new();
    image.put("app/prog", 0o755, elf64(X86_64, "/lib/ld-musl-x86_64.so.1"));
    image.put("lib64/ld-linux-x86-64.so.2", 0o755, "");
    let failure = image.explain("/app/prog", Errno::NOENT);
    assert_says(&failure, Class::CommandNotFound, &["needs musl and the image has glibc"]);
}

#[test]
fn contents_the_kernel_cannot_run_are_126() {
    let image = Image::new();
    let host = rustix::system::uname().machine().to_str().unwrap().to_owned();
    let foreign = if host_is_arm() { X86_64 } else { AARCH64 };
    image.put("app/elf", 0o755, elf64(foreign, ""));
    // Not through chroot(1), whose execvp gives what the kernel refuses to a shell.
    let error = std::process::Command::new(image.dir.path().join("app/elf")).spawn().unwrap_err();
    let failure = image.explain("/app/elf", Errno::from_io_error(&error).unwrap());
    assert_says(&failure, Class::NotExecutable, &["exec format error", "64-bit program for", &host, "emulator"]);
    image.put("app/empty", 0o755, "").put("app/text", 0o755, "echo hi\n");
    image.put("app/mark", 0o755, "\u{feff}#!/bin/sh\n").put("app/bad", 0o755, "#!\n");
    image.put("app/exe", 0o755, "MZ\x00").put("app/cut", 0o755, &elf64(X86_64, "")[..20]);
    let cases = [
        ("empty", "is empty"),
        ("text", "without a \"#!\" line"),
        ("mark", "byte order mark"),
        ("bad", "usable interpreter"),
        ("exe", "for Windows"),
        ("cut", "damaged or cut off"),
    ];
    for (name, part) in cases {
        let failure = image.explain(&format!("/app/{name}"), Errno::NOEXEC);
        assert_says(&failure, Class::NotExecutable, &["exec format error", part]);
    }
}

#[test]
fn an_interpreter_that_may_not_run_is_126() {
    let image = Image::new();
    image.put("app/run", 0o755, "#!/bin/sh\n").put("bin/sh", 0o644, "x");
    assert_says(&image.run("/app/run"), Class::NotExecutable, &["/bin/sh: its mode 0644"]);
}

#[test]
fn a_noexec_mount_is_named() {
    // A tmpfs in another process's own mount namespace, reached through /proc: it vanishes with that process.
    let image = Image::new();
    let script = "mount -t tmpfs -o noexec,mode=755 tmpfs \"$0\" && cp /bin/true \"$0/true\" && echo ready && read end";
    let mut holder = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(image.dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let root = File::open(format!("/proc/{}/root{}", holder.id(), image.dir.path().display())).unwrap();
    let lookup = Lookup { root: root.as_fd(), cwd: "/", argv0: "/true", path: "" };
    let failure = explain_exec(&lookup, Errno::ACCESS);
    drop(root);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(line, "ready\n");
    assert_says(&failure, Class::NotExecutable, &["/true lies on a file system that is mounted noexec", ":exec"]);
}

#[test]
fn a_script_that_names_itself_ends() {
    let image = Image::new();
    image.put("app/self", 0o755, "#!/app/self\n");
    for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC, Errno::LOOP] {
        let failure = image.explain("/app/self", errno);
        assert!(failure.to_string().contains(text_of(errno)), "{failure}");
    }
}

#[test]
fn the_hosts_troubles_are_the_engines() {
    let image = Image::new();
    image.put("app/run", 0o755, "#!/bin/sh\n");
    assert_says(&image.explain("/app/run", Errno::TOOBIG), Class::Engine, &["argument list too long", "in a file"]);
    assert_says(&image.explain("/app/run", Errno::NOMEM), Class::Engine, &["cannot allocate memory"]);
}
