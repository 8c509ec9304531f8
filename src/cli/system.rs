//! `info`, `version`.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::output::{self, printable};
use super::spec::{self, Arity, Spec};
use super::{Session, quantity, template};
use crate::engine::Engine;
use crate::engine::query::{InfoView, VersionView};

pub(super) static INFO: Spec = Spec {
    name: "info",
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: format_flag,
    run: |session, matches| {
        let info = session.engine()?.info()?;
        let value = serde_json::to_value(&info).context("encode the information")?;
        if !formatted(matches, &value)? {
            output::print(&info_text(&info))?;
            info.warnings.iter().for_each(|warning| output::warn(warning));
        }
        Ok(0)
    },
};

pub(super) static VERSION: Spec = Spec {
    name: "version",
    usage: "[OPTIONS]",
    about: "Show the version information",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: format_flag,
    run: version,
};

fn format_flag(command: clap::Command) -> clap::Command {
    command.arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template"))
}

/// Shows the value through `--format`, when there is one.
fn formatted(matches: &ArgMatches, value: &serde_json::Value) -> Result<bool> {
    let Some(format) = spec::text(matches, "format").filter(|format| !format.is_empty()) else { return Ok(false) };
    output::print_line(&template::render_object(&format, value)?)?;
    Ok(true)
}

fn version(_session: &Session, matches: &ArgMatches) -> Result<i32> {
    let version = Engine::version();
    let value = serde_json::to_value(&version).context("encode the version")?;
    if !formatted(matches, &value)? {
        output::print(&version_text(&version))?;
    }
    Ok(0)
}

/// `mydocker --version`.
pub(super) fn print_short_version() -> Result<()> {
    let version = Engine::version().client;
    output::print_line(&format!("mydocker version {}, build {}", version.version, version.git_commit))
}

fn version_text(version: &VersionView) -> String {
    let client = &version.client;
    let mut text = String::from("Client:\n");
    let mut line = |key: &str, value: &str| _ = writeln!(text, " {:<18} {value}", format!("{key}:"));
    line("Version", &client.version);
    line("Git commit", &client.git_commit);
    line("Built", &client.build_time);
    line("Rust version", &client.rust_version);
    line("OS/Arch", &format!("{}/{}", client.os, client.arch));
    text.push_str("\nServer: none needed, the engine is in this program\n");
    text
}

fn info_text(info: &InfoView) -> String {
    let mut text = String::new();
    let mut line = |depth: usize, key: &str, value: &str| {
        let value = printable(value);
        _ = writeln!(text, "{}", format!("{}{key}: {value}", " ".repeat(depth)).trim_end());
    };
    line(0, "Client", "");
    line(1, "Version", &info.server_version);
    line(0, "Server", "");
    line(1, "Containers", &info.containers.to_string());
    line(2, "Running", &info.containers_running.to_string());
    line(2, "Paused", &info.containers_paused.to_string());
    line(2, "Stopped", &info.containers_stopped.to_string());
    line(1, "Images", &info.images.to_string());
    line(1, "Server Version", &info.server_version);
    line(1, "Storage Driver", &info.driver);
    line(1, "Logging Driver", &info.logging_driver);
    line(1, "Plugins", "");
    line(2, "Volume", &info.plugins.volume.join(" "));
    line(2, "Network", &info.plugins.network.join(" "));
    line(2, "Log", &info.plugins.log.join(" "));
    line(1, "Cgroup Driver", &info.cgroup_driver);
    line(1, "Cgroup Version", &info.cgroup_version);
    line(1, "Cgroups", &info.cgroup_description);
    line(1, "Kernel Version", &info.kernel_version);
    line(1, "Operating System", &info.operating_system);
    line(1, "OSType", &info.os_type);
    line(1, "Architecture", &info.architecture);
    line(1, "CPUs", &info.ncpu.to_string());
    line(1, "Total Memory", &quantity::human_memory(info.mem_total));
    line(1, "Name", &info.name);
    line(1, "Docker Root Dir", &info.docker_root_dir);
    text
}
