//! Other programs that know images: skopeo, umoci, podman, and Docker with a daemon of the test's own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Sandbox, eventually};

/// Runs a program of the host that succeeds; its standard output.
#[track_caller]
pub fn host<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    finish(command, program)
}

#[track_caller]
fn finish(mut command: Command, program: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error} (install the package)"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.trim_end().to_owned()
}

/// Runs skopeo below the sandbox, where it keeps what it keeps.
#[track_caller]
pub fn skopeo(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "--tmpdir"]).arg(sandbox.host_dir("skopeo")).args(args);
    finish(command, "skopeo")
}

/// Runs podman on a store of the sandbox's own.
#[track_caller]
pub fn podman(sandbox: &Sandbox, args: &[&str]) -> String {
    let mut command = Command::new("podman");
    for (flag, directory) in [("--root", "podman"), ("--runroot", "podman-run"), ("--tmpdir", "podman-tmp")] {
        command.arg(flag).arg(sandbox.host_dir(directory));
    }
    command.args(["--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"]).args(args);
    command.env("TMPDIR", sandbox.host_dir("podman-tmp"));
    finish(command, "podman")
}

/// Files and links of a tree with mode, size or target, and contents, sorted: what two unpackings must agree in. Without the
/// mark that a container's root has and an image's has not.
pub fn tree(root: &Path) -> Vec<String> {
    let script = r#"cd "$1" && find . -mindepth 1 ! -path ./.dockerenv \( -type f -printf '%P %y %m %U:%G %s ' -exec sha256sum {} \; \) \
        -o ! -path ./.dockerenv -printf '%P %y %m %U:%G %l\n' | sed 's/  \.\/.*$//' | sort"#;
    let text = host("sh", ["-c", script, "sh", root.to_str().unwrap()]);
    text.lines().map(str::to_owned).collect()
}

/// A Docker daemon without a network, on a socket of its own; stopped when dropped.
pub struct Docker {
    child: Child,
    directory: PathBuf,
}

impl Docker {
    #[track_caller]
    pub fn start(sandbox: &Sandbox) -> Docker {
        let directory = PathBuf::from(sandbox.host_dir("docker"));
        let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        let child = Command::new("dockerd")
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("sock")), "--bridge=none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .expect("run dockerd (install docker.io)");
        let docker = Docker { child, directory };
        let log = || fs::read_to_string(docker.directory.join("log")).unwrap_or_default();
        eventually("a Docker daemon that answers", || {
            let answers = docker.command(["version"]).output().is_ok_and(|output| output.status.success());
            assert!(answers || !log().contains("failed to start daemon"), "{}", log());
            answers
        });
        docker
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", format!("unix://{}/sock", self.directory.display()));
        command.env("DOCKER_CONFIG", &self.directory).stdin(Stdio::null());
        command
    }

    /// Runs a command line that succeeds; its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        finish(self.command(args), "docker")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
