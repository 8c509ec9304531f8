//! A data root, and a place on the host, for one test alone.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::host::Namespace;
use super::invocation::Invocation;
use super::{Output, Terminal, against_docker, archive, comes_true, host, leftovers, patience};

static SANDBOXES: AtomicU32 = AtomicU32::new(0);

/// What `statfs` says of an overlay, on which no other overlay can be written.
const OVERLAYFS: i64 = 0x794c_7630;

/// One test's containers, on a host of their own as far as networks go: nothing touches the machine's
/// links and rules. Dropping it removes them and looks for what they left.
pub struct Sandbox {
    directory: tempfile::TempDir,
    tag: String,
    // Ids of containers that existed at some time, to find what they left.
    seen: RefCell<Vec<String>>,
}

impl Sandbox {
    #[track_caller]
    pub fn new() -> Sandbox {
        assert!(rustix::process::geteuid().is_root(), "containers need root: run the tests through `make test`");
        if !against_docker() {
            host::enter_private();
        }
        let number = SANDBOXES.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new().prefix("mydocker-test.").tempdir_in(base()).unwrap();
        // Of fixed width, or the first sandbox would take what belongs to the tenth for its own.
        let tag = format!("t{}x{number:04}", std::process::id());
        Sandbox { directory, tag, seen: RefCell::default() }
    }

    /// The data root.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The program under test.
    pub fn program(&self) -> PathBuf {
        own_program()
    }

    /// A path on the host that no other test uses; nothing is made there.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text.
    pub fn host(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Makes a directory on the host.
    pub fn host_dir(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        self.host(name)
    }

    /// Writes a file on the host.
    pub fn host_file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), contents).unwrap();
        self.host(name)
    }

    /// A container name that only this sandbox uses.
    pub fn name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.tag)
    }

    /// A command line of the program under test, on this sandbox's data root.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Invocation {
        let mut command = program();
        if !against_docker() {
            command.arg("--root").arg(self.root());
        }
        command.args(args);
        // Bundled images are looked for in `images/` of the checkout.
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        Invocation::new(command)
    }

    /// The same command line as the arguments of a host shell's `script`.
    pub fn with_shell<S: AsRef<OsStr>>(&self, script: &str, args: impl IntoIterator<Item = S>) -> Invocation {
        let inner = self.command(args).command;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        Invocation::new(command)
    }

    /// Runs a command line to its end, whatever its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let output = self.command(args).run().cleanly();
        if !against_docker() {
            self.seen.borrow_mut().extend(leftovers::containers(&self.root()));
        }
        output
    }

    /// Runs a command line that succeeds; its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.run(args).code(0).out()
    }

    /// Runs a command line that fails with `code`.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> Output {
        self.run(args).code(code)
    }

    /// What a shell script prints in a container of its own, made with `flags`.
    #[track_caller]
    pub fn script(&self, flags: &[&str], script: &str) -> String {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", script]);
        self.ok(args)
    }

    /// A detached container that does nothing until it is told to end; its id.
    #[track_caller]
    pub fn idle(&self, name: &str, flags: &[&str]) -> String {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(flags);
        // `trap` because the kernel shields pid 1 from signals it has no handler for.
        args.extend(["busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]);
        self.ok(args)
    }

    /// A detached container that sleeps until it is killed; its id. Unlike an idle one it costs no
    /// processor time, and does not heed SIGTERM.
    #[track_caller]
    pub fn sleeper(&self, name: &str, flags: &[&str]) -> String {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(flags);
        args.extend(["busybox", "sleep", "1000"]);
        self.ok(args)
    }

    /// Loads images that are made for it.
    #[track_caller]
    pub fn load_images(&self, images: &[archive::Image<'_>]) {
        let file = self.host("images.tar");
        archive::save_all(Path::new(&file), images);
        self.ok(["load", "-q", "-i", &file]);
        fs::remove_file(file).unwrap();
        // Marks of layers that are not flushed yet go by themselves some time later. Now, so that nobody's sums
        // change in the middle.
        for mark in fs::read_dir(self.root().join("image/unsettled")).into_iter().flatten().flatten() {
            let _ = fs::remove_file(mark.path());
        }
    }

    /// Bytes that something below the data root occupies, as du(1) counts; empty for all of it.
    #[track_caller]
    pub fn du(&self, below: &str) -> u64 {
        let output = Command::new("du").args(["-s", "-B1"]).arg(self.root().join(below)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse().unwrap()
    }

    /// The network namespace of a running container.
    #[track_caller]
    pub fn inside(&self, reference: &str) -> Namespace {
        Namespace::of(self.pid(reference))
    }

    /// The container's IPv4 address on a network.
    #[track_caller]
    pub fn address(&self, reference: &str, network: &str) -> IpAddr {
        let template = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        let text = self.field(reference, &template);
        text.parse().unwrap_or_else(|error| panic!("{reference} has {text:?} on {network}: {error}"))
    }

    /// The same of IPv6.
    #[track_caller]
    pub fn address6(&self, reference: &str, network: &str) -> IpAddr {
        let template = format!("{{{{(index .NetworkSettings.Networks {network:?}).GlobalIPv6Address}}}}");
        let text = self.field(reference, &template);
        text.parse().unwrap_or_else(|error| panic!("{reference} has {text:?} on {network}: {error}"))
    }

    /// The gateway of a network's first or second subnet.
    #[track_caller]
    pub fn gateway(&self, network: &str, subnet: usize) -> IpAddr {
        let template = format!("{{{{(index .IPAM.Config {subnet}).Gateway}}}}");
        self.ok(["network", "inspect", "--format", &template, network]).parse().unwrap()
    }

    /// The first or second subnet of a network.
    #[track_caller]
    pub fn subnet(&self, network: &str, subnet: usize) -> String {
        let template = format!("{{{{(index .IPAM.Config {subnet}).Subnet}}}}");
        self.ok(["network", "inspect", "--format", &template, network])
    }

    /// A command line on a terminal of 24 × 80.
    #[track_caller]
    pub fn terminal<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Terminal {
        Terminal::start(self.command(args), 24, 80)
    }

    /// The one element of `inspect`.
    #[track_caller]
    pub fn inspect(&self, reference: &str) -> Value {
        let text = self.ok(["inspect", reference]);
        let mut value: Value = serde_json::from_str(&text).unwrap();
        let array = value.as_array_mut().unwrap();
        assert_eq!(array.len(), 1, "{text}");
        array.remove(0)
    }

    /// `inspect --format`.
    #[track_caller]
    pub fn field(&self, reference: &str, template: &str) -> String {
        self.ok(["inspect", "--format", template, reference])
    }

    /// Whether the container runs.
    #[track_caller]
    pub fn is_running(&self, reference: &str) -> bool {
        self.field(reference, "{{.State.Running}}") == "true"
    }

    /// The container's first process, as the host numbers it.
    #[track_caller]
    pub fn pid(&self, reference: &str) -> i32 {
        self.field(reference, "{{.State.Pid}}").parse().unwrap()
    }

    /// Waits until `logs` of the container hold `needle`.
    #[track_caller]
    pub fn await_log(&self, reference: &str, needle: &str) {
        super::eventually(&format!("{needle:?} in the log of {reference}"), || {
            let output = self.run(["logs", reference]);
            output.out().contains(needle) || output.err().contains(needle)
        });
    }

    fn remove_everything(&self) {
        let mut args = vec!["rm".to_owned(), "-f".into(), "-v".into()];
        if against_docker() {
            let filter = format!("name={}", self.tag);
            let ids = self.command(["ps", "-aq", "--filter", &filter]).run().out();
            args.extend(ids.lines().map(str::to_owned));
        } else {
            args.extend(leftovers::containers(&self.root()));
        }
        if args.len() > 3 {
            drop(self.command(args).run());
        }
    }

    fn left(&self) -> Vec<String> {
        let base = self.directory.path().to_str().unwrap().to_owned();
        let mut ids = self.seen.borrow().clone();
        ids.sort();
        ids.dedup();
        let mut left = leftovers::mounts(&base);
        left.extend(leftovers::files(&self.root()));
        left.extend(leftovers::addresses(&self.root()));
        left.extend(leftovers::devices());
        left.extend(leftovers::rules(&ids));
        for cgroup in leftovers::cgroups() {
            let name = cgroup.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if ids.iter().any(|id| name == id || name == format!("mydocker-{id}.scope")) {
                left.push(format!("cgroup: {}", cgroup.display()));
            }
        }
        ids.extend([base, self.tag.clone()]);
        left.extend(leftovers::running(&ids));
        left
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !against_docker() {
            self.seen.borrow_mut().extend(leftovers::containers(&self.root()));
        }
        self.remove_everything();
        if against_docker() {
            return;
        }
        // What the user does not wait for (directories, cgroups) goes on after the command returns.
        let clean = comes_true(patience(), || self.left().is_empty());
        if !clean {
            let left = self.left().join("\n");
            // A test that fails already says why; a second panic would hide it.
            if std::thread::panicking() {
                eprintln!("left behind after the failure above:\n{left}");
            } else {
                panic!("left behind:\n{left}");
            }
        }
    }
}

fn program() -> Command {
    if against_docker() {
        return Command::new("docker");
    }
    Command::new(own_program())
}

fn own_program() -> PathBuf {
    std::env::var_os("MYDOCKER_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_mydocker").into()).into()
}

/// Where data roots go: a file system on which an overlay can be written. `/tmp` is often a tmpfs;
/// inside a container everything but a volume is an overlay.
fn base() -> PathBuf {
    let chosen = std::env::var_os("MYDOCKER_TEST_DIR").map(PathBuf::from);
    let candidates =
        [chosen, Some("/var/tmp".into()), Some(env!("CARGO_TARGET_TMPDIR").into()), Some("/dev/shm".into())];
    let usable = |path: &Path| rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type != OVERLAYFS);
    candidates
        .into_iter()
        .flatten()
        .find(|path| usable(path))
        .expect("no file system for an overlay: set MYDOCKER_TEST_DIR")
}
