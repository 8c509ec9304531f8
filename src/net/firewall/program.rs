//! Which `iptables` programs to run, and running them.
//!
//! The kernel has two sets of tables that both see every packet: nftables, written by
//! `iptables-nft-*`, and the older x_tables, written by `iptables-legacy-*`. A packet must be
//! accepted in both: our ACCEPT in the one does not answer a DROP in the other. So our rules belong
//! where the other rules of the machine are.
//!
//! The default `iptables` of a system is where its administrator and Docker put theirs, so that is
//! ours. Only where the default writes nftables while x_tables are loaded in this namespace
//! (`/proc/thread-self/net/ip_tables_names`, which is there per namespace) it has to be decided:
//! where our chains are already; else in the legacy tables if anything stands in them, because
//! somebody put it there on purpose (merely listing them loads them, empty); else the default.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::fs::MemfdFlags;

use super::rules::Family;
use super::saved::Saved;
use crate::error::Failure;

/// Seconds that a program waits for the lock of the legacy tables.
const WAIT: &str = "--wait=10";
/// Where programs are besides `PATH`, which is short for a service and for `su`.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// A pair of programs that write and read the same tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    restore: PathBuf,
    save: PathBuf,
}

/// The back ends that our rules may be in, the one to try first in front: nearly always one.
pub(super) fn candidates(family: Family) -> Result<Vec<Backend>> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    places.extend(PLACES.iter().map(PathBuf::from));
    let (name, loaded) = match family {
        Family::V4 => ("iptables", "/proc/thread-self/net/ip_tables_names"),
        Family::V6 => ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
    };
    let loaded = fs::read_to_string(loaded).unwrap_or_default();
    choose(&places, name, loaded.lines().any(|table| matches!(table, "filter" | "nat")))
}

/// [`candidates`] with what it looks at.
pub(super) fn choose(places: &[PathBuf], name: &str, legacy_loaded: bool) -> Result<Vec<Backend>> {
    let variant = |infix: &str| {
        let find = |what: &str| find(places, &format!("{name}{infix}-{what}"));
        Some(Backend { restore: find("restore")?, save: find("save")? })
    };
    let default = variant("").or_else(|| variant("-nft")).or_else(|| variant("-legacy")).ok_or_else(|| {
        Failure::engine(format!("run {name}-restore: it is not installed"))
            .with_hint("container networks need iptables: apt-get install iptables, or the like")
    })?;
    if !legacy_loaded || default.is_legacy() {
        return Ok(vec![default]);
    }
    match variant("-legacy") {
        Some(legacy) => Ok(vec![legacy, default]),
        None => Ok(vec![default]),
    }
}

fn find(places: &[PathBuf], name: &str) -> Option<PathBuf> {
    places
        .iter()
        .filter(|place| place.is_absolute())
        .map(|place| place.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

impl Backend {
    /// The program behind the links is the one for x_tables: `xtables-legacy-multi`, or
    /// `xtables-multi` from before there was another.
    fn is_legacy(&self) -> bool {
        let real = fs::canonicalize(&self.restore).unwrap_or_else(|_| self.restore.clone());
        !real.file_name().map(OsStr::as_bytes).unwrap_or_default().windows(3).any(|part| part == b"nft")
    }

    /// Everything in the tables.
    pub(super) fn saved(&self) -> Result<Saved> {
        let mut command = Command::new(&self.save);
        command.stdin(Stdio::null()).env("LC_ALL", "C");
        let output = command.output().with_context(|| format!("run {}", self.save.display()))?;
        if !output.status.success() {
            return Err(refused(&self.save, &output.stderr, ""));
        }
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Applies a script: each of its tables as a whole or not at all. The program keeps the lock, too,
    /// if we do not live to see its end.
    pub(super) fn restore(&self, script: &str, lock: &Option<File>) -> Result<()> {
        let shared = lock.as_ref().and_then(|file| file.try_clone().ok());
        let mut command = Command::new(&self.restore);
        command.args(["--noflush", WAIT]).stdin(Stdio::from(input(script)?)).env("LC_ALL", "C");
        command.stdout(shared.map_or_else(Stdio::null, Stdio::from));
        let output = command.output().with_context(|| format!("run {}", self.restore.display()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(&self.restore, &output.stderr, script))
    }
}

/// A file that holds the script: no pipe that somebody has to fill.
fn input(script: &str) -> Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("rules", MemfdFlags::CLOEXEC).context("make a file for rules")?);
    file.write_all(script.as_bytes()).and_then(|()| file.rewind()).context("write rules")?;
    Ok(file)
}

/// The program's words, and the line that they are about where they name one.
fn refused(program: &Path, stderr: &[u8], script: &str) -> anyhow::Error {
    let text = String::from_utf8_lossy(stderr);
    let said = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim();
    let number = text.split("line").nth(1).and_then(|rest| {
        let digits: String = rest.trim_start_matches([':', ' ']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    let line = number.and_then(|number| script.lines().nth(number.checked_sub(1)?));
    let about = line.map(|line| format!(" (at: {line})")).unwrap_or_default();
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    Failure::engine(format!("change firewall rules: {name}: {said}{about}")).into()
}
