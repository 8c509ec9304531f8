//! The flags of `run` and `create`.

use clap::Command;

use super::spec::{list, optional_value, switch, value};
use super::{device, environment, health, networking, resources, security};

/// Flags of Docker that this engine does not have yet. They are refused by name: ignoring a limit
/// or a published port would be a lie.
pub(super) const UNSUPPORTED: &[&str] = &[
    "--annotation",
    "--cpu-count",
    "--cpu-percent",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--disable-content-trust",
    "--gpus",
    "--init",
    "--io-maxbandwidth",
    "--io-maxiops",
    "--isolation",
    "--kernel-memory",
    "--link-local-ip",
    "--oom-score-adj",
    "--runtime",
    "--storage-opt",
    "--use-api-socket",
    "--userns",
    "--volume-driver",
    "--volumes-from",
];

/// Flags of `run` and `create`.
pub(super) fn shared(command: Command) -> Command {
    let command = process(command).args(environment::flags()).args(health::flags());
    let command = networking::flags(device::flags(resources::create_flags(resources::flags(security::flags(command)))));
    files(namespaces(command))
        .arg(value("cidfile", None, "string", "Write the container ID to the file"))
        .arg(list("label", Some('l'), "list", "Set meta data on a container"))
        .arg(list("label-file", None, "list", "Read in a line delimited file of labels"))
        .arg(value("log-driver", None, "string", "Logging driver for the container: json-file or none"))
        .arg(list("log-opt", None, "list", "Log driver options: max-size, max-file"))
        .arg(value("name", None, "string", "Assign a name to the container"))
        .arg(value("platform", None, "string", "Set platform if the engine is multi-platform capable"))
        .arg(value("pull", None, "string", "Pull image before running (\"always\", \"missing\", \"never\")"))
        .arg(switch("quiet", Some('q'), "Suppress the pull output"))
        .arg(value("restart", None, "string", "Restart policy to apply when a container exits (default \"no\")"))
        .arg(switch("rm", None, "Automatically remove the container when it exits"))
}

/// Flags that `run` has and `create` has not.
pub(super) fn run_only(command: Command) -> Command {
    command
        .arg(switch("detach", Some('d'), "Run container in background and print container ID"))
        .arg(value("detach-keys", None, "string", "Override the key sequence for detaching a container"))
        .arg(switch("sig-proxy", None, "Proxy received signals to the process (default true)"))
        .arg(value("pidfile", None, "string", "Write the process ID of the container's first process to the file"))
        .arg(optional_value(
            "explain",
            "steps",
            "json|plan",
            "Show the steps of the start with their times, or only the plan",
        ))
}

fn process(command: Command) -> Command {
    command
        .arg(list("attach", Some('a'), "list", "Attach to STDIN, STDOUT or STDERR"))
        .arg(value("entrypoint", None, "string", "Overwrite the default ENTRYPOINT of the image"))
        .arg(list("group-add", None, "list", "Add additional groups to join"))
        .arg(switch("interactive", Some('i'), "Keep STDIN open even if not attached"))
        .arg(value("stop-signal", None, "string", "Signal to stop the container"))
        .arg(value("stop-timeout", None, "int", "Timeout (in seconds) to stop a container"))
        .arg(switch("tty", Some('t'), "Allocate a pseudo-TTY"))
        .arg(value("user", Some('u'), "string", "Username or UID (format: <name|uid>[:<group|gid>])"))
        .arg(value("workdir", Some('w'), "string", "Working directory inside the container"))
}

fn namespaces(command: Command) -> Command {
    command
        .arg(list("add-host", None, "list", "Add a custom host-to-IP mapping (host:ip)"))
        .arg(value("domainname", None, "string", "Container NIS domain name"))
        .arg(value("hostname", Some('h'), "string", "Container host name"))
        .arg(value("ipc", None, "string", "IPC mode to use: private, shareable, host or container:NAME"))
        .arg(value("pid", None, "string", "PID namespace to use: host or container:NAME"))
        .arg(value("uts", None, "string", "UTS namespace to use: host"))
}

fn files(command: Command) -> Command {
    command
        .arg(list("mount", None, "mount", "Attach a filesystem mount to the container"))
        .arg(switch("read-only", None, "Mount the container's root filesystem as read only"))
        .arg(value("shm-size", None, "bytes", "Size of /dev/shm"))
        .arg(list("tmpfs", None, "list", "Mount a tmpfs directory"))
        .arg(list("volume", Some('v'), "list", "Bind mount a volume"))
}
