//! The scopes of systemd, for hosts where it is to know of every group (`--cgroup-driver systemd`). A scope is a unit
//! of processes that systemd did not start itself; ours are transient and delegated: systemd makes the group and keeps
//! its hands off what is inside (systemd.scope(5), org.freedesktop.systemd1(5), systemd.io/CGROUP_DELEGATION).
//!
//! The group's own limits stay systemd's, too: it writes them again whenever it reloads. So it is told them all, by
//! [`start_scope`] and [`set_limits`], beside our own writing of them ([`super::Group::apply`]), which also knows
//! those that it has no words for.

mod dbus;
mod properties;

use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::runtime::LinuxResources;

use self::dbus::{Body, CallError, Connection, Message, Method};
use super::Mode;
use super::place::Unit;
use crate::error::Failure;

/// systemd's own socket, for root: needs no bus, so that it is there early, late and on small systems.
const PRIVATE: &str = "/run/systemd/private";
/// The system bus, for hosts whose systemd has given up the private one.
const BUS: &str = "/run/dbus/system_bus_socket";
/// Where systemd mounts its own v1 hierarchy, on every host that has one (`cgroup-util.c`).
pub(super) const NAMED_HIERARCHY: &str = "/sys/fs/cgroup/systemd";
/// Times that a scope is asked for while one of that name is on its way out.
const TRIES: usize = 3;

/// A scope to be made.
#[derive(Debug)]
pub struct Scope<'a> {
    /// Its name and slice.
    pub unit: &'a Unit,
    /// What `systemctl status` shows.
    pub description: String,
    /// The process that it begins with; must not be reaped meanwhile.
    pub pid: i32,
    /// Its limits.
    pub limits: &'a LinuxResources,
    /// Which version of cgroups the host has.
    pub mode: Mode,
}

/// Whether this host is run by systemd, for an early word.
///
/// # Errors
/// It is not.
pub fn require() -> Result<()> {
    // The test of sd_booted(3).
    if Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    Err(Failure::engine("this host is not run by systemd, so it cannot make a scope")
        .with_hint("leave --cgroup-driver away")
        .into())
}

/// Makes a scope with one process in it, and its slice where that is missing. When it returns, the process is in the
/// group and its descendants will be.
///
/// Waits for systemd's word `JobRemoved` rather than for the directory: the word also tells how the job has failed,
/// and the directory appears before the process is in it.
///
/// # Errors
/// The host is not run by systemd, or systemd refuses.
pub fn start_scope(scope: &Scope<'_>) -> Result<()> {
    require()?;
    let attempt = || -> Result<()> {
        let mut systemd = Systemd::connect()?;
        systemd.subscribe()?;
        let mut body = Body::default();
        body.text(&scope.unit.name);
        body.text("fail");
        body.properties(&properties::of_scope(scope)?);
        // No auxiliary units.
        body.array(8, |_| ());
        for _ in 1..TRIES {
            match systemd.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", &body) {
                // The last run's, whose end systemd has not noticed yet.
                Err(error) if is_named(&error, "UnitExists") => systemd.stop(&scope.unit.name)?,
                result => return result,
            }
        }
        systemd.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)
    };
    attempt().with_context(|| format!("make scope {}", scope.unit.name))
}

/// Tells systemd other limits of a scope, until it ends.
///
/// # Errors
/// As [`start_scope`].
pub fn set_limits(unit: &Unit, limits: &LinuxResources, mode: Mode) -> Result<()> {
    require()?;
    let mut body = Body::default();
    body.text(&unit.name);
    // Runtime: not to be kept over a reboot.
    body.boolean(true);
    body.properties(&properties::of_limits(limits, mode)?);
    let result = Systemd::connect().and_then(|mut systemd| systemd.call("SetUnitProperties", "sba(sv)", &body));
    result.map(drop).with_context(|| format!("set limits of scope {}", unit.name))
}

/// Ends a scope, whatever is left in it; harmless when there is none. When it returns, its group is gone.
///
/// # Errors
/// systemd cannot be asked, or does not succeed.
pub fn stop_scope(name: &str) -> Result<()> {
    let stop = || {
        let mut systemd = Systemd::connect()?;
        systemd.subscribe()?;
        systemd.stop(name)
    };
    stop().with_context(|| format!("stop scope {name}"))
}

/// A conversation with systemd.
struct Systemd {
    connection: Connection,
    is_bus: bool,
}

impl Systemd {
    fn connect() -> Result<Systemd> {
        let (private, bus) = (Path::new(PRIVATE), Path::new(BUS));
        let first = match Connection::open(private) {
            Ok(connection) => return Ok(Systemd { connection, is_bus: false }),
            Err(error) => error,
        };
        let Ok(connection) = Connection::open(bus) else {
            return Err(Failure::engine(format!("connect to systemd at {PRIVATE}: {first}"))
                .with_hint("only root may; a container needs the host's /run/systemd")
                .into());
        };
        let mut systemd = Systemd { connection, is_bus: true };
        systemd.call_bus("Hello", None)?;
        Ok(systemd)
    }

    /// Asks for signals: those about jobs are wanted.
    fn subscribe(&mut self) -> Result<()> {
        if self.is_bus {
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            self.call_bus("AddMatch", Some(rule))?;
        }
        self.call("Subscribe", "", &Body::default()).map(drop)
    }

    fn call_bus(&mut self, member: &str, argument: Option<&str>) -> Result<()> {
        let destination = "org.freedesktop.DBus";
        let method = Method { destination, path: "/org/freedesktop/DBus", interface: destination, member };
        let mut body = Body::default();
        if let Some(text) = argument {
            body.text(text);
        }
        let signature = if argument.is_some() { "s" } else { "" };
        self.connection.call(&method, signature, &body).map(drop).map_err(|error| explain(member, error))
    }

    fn call(&mut self, member: &str, signature: &str, body: &Body) -> Result<Message> {
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member,
        };
        self.connection.call(&method, signature, body).map_err(|error| explain(member, error))
    }

    /// Calls a method that answers with a job, and waits for its end.
    fn run_job(&mut self, member: &str, signature: &str, body: &Body) -> Result<()> {
        let reply = self.call(member, signature, body)?;
        let job = reply.reader().text().context("systemd names no job")?.to_owned();
        loop {
            let signal = self.connection.signal().with_context(|| format!("wait for {member}"))?;
            // JobRemoved(u id, o job, s unit, s result)
            let mut reader = signal.reader();
            if signal.member != "JobRemoved" || reader.number32().is_none() || reader.text() != Some(&job) {
                continue;
            }
            return match (reader.text(), reader.text()) {
                (_, Some("done" | "skipped")) => Ok(()),
                (unit, result) => {
                    let result = result.unwrap_or("no result");
                    let hint = format!("systemctl status {} tells more", unit.unwrap_or("UNIT"));
                    Err(Failure::engine(format!("{member}: the job ended with {result}")).with_hint(hint).into())
                }
            };
        }
    }

    /// Stops a unit, and makes systemd forget it if it had failed.
    fn stop(&mut self, unit: &str) -> Result<()> {
        let mut body = Body::default();
        body.text(unit);
        let mut arguments = Body::default();
        arguments.text(unit);
        arguments.text("replace");
        match self.run_job("StopUnit", "ss", &arguments) {
            Err(error) if is_named(&error, "NoSuchUnit") => return Ok(()),
            result => result?,
        }
        match self.call("ResetFailedUnit", "s", &body) {
            Err(error) if !is_named(&error, "NoSuchUnit") => Err(error),
            _ => Ok(()),
        }
    }
}

/// systemd's refusal, by the last part of its name.
#[derive(Debug, thiserror::Error)]
#[error("{member}: {text} ({name})")]
struct Refusal {
    member: String,
    name: String,
    text: String,
}

fn explain(member: &str, error: CallError) -> anyhow::Error {
    let member = member.to_owned();
    match error {
        CallError::Connection(error) => anyhow::Error::new(error).context(format!("{member}: ask systemd")),
        CallError::Refused { name, text } => Refusal { member, name, text }.into(),
    }
}

fn is_named(error: &anyhow::Error, name: &str) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| refusal.name.rsplit('.').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_their_names() {
        let name = "org.freedesktop.systemd1.NoSuchUnit".to_owned();
        let error = explain("StopUnit", CallError::Refused { name, text: "Unit x not loaded.".into() });
        assert!(is_named(&error, "NoSuchUnit"));
        assert!(!is_named(&error, "UnitExists"));
        assert_eq!(error.to_string(), "StopUnit: Unit x not loaded. (org.freedesktop.systemd1.NoSuchUnit)");
    }
}
