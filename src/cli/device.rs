//! `--device` and `--device-cgroup-rule`.

use anyhow::Result;
use clap::{ArgMatches, Command};

use super::spec::{self, invalid};
use crate::container::DeviceMapping;
use crate::engine::devices::{are_permissions, parse_rule};

/// Adds the flags.
pub(super) fn flags(command: Command) -> Command {
    command.arg(spec::list("device", None, "list", "Add a host device to the container (HOST[:CONTAINER][:rwm])")).arg(
        spec::list(
            "device-cgroup-rule",
            None,
            "list",
            "Add a rule to the cgroup allowed devices list ('c 10:229 rwm')",
        ),
    )
}

/// Devices of the host; whether they exist is asked at each start.
pub(super) fn devices(matches: &ArgMatches) -> Result<Vec<DeviceMapping>> {
    let texts = spec::texts(matches, "device");
    texts.iter().map(|text| parse(text).map_err(|why| invalid("device", text, why))).collect()
}

/// `HOST[:CONTAINER][:PERMISSIONS]`, judged as Docker judges it: of two words the second is permissions if it can be.
fn parse(text: &str) -> std::result::Result<DeviceMapping, String> {
    let words: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match *words.as_slice() {
        [host] => (host, host, "rwm"),
        [host, permissions] if are_permissions(permissions) => (host, host, permissions),
        [host, container] => (host, container, "rwm"),
        [_, _, permissions] if !are_permissions(permissions) => {
            return Err(format!("bad mode specified: {permissions}"));
        }
        [host, container, permissions] => (host, container, permissions),
        _ => return Err(format!("bad format for path: {text}")),
    };
    if host.is_empty() {
        return Err(format!("bad format for path: {text}"));
    }
    for path in [container, host] {
        if !path.starts_with('/') {
            return Err(format!("{path} is not an absolute path"));
        }
    }
    let [host, container, permissions] = [host, container, permissions].map(str::to_owned);
    Ok(DeviceMapping { host, container, permissions })
}

/// Rules for the device cgroup, as given.
pub(super) fn rules(matches: &ArgMatches) -> Result<Vec<String>> {
    let rules = spec::texts(matches, "device-cgroup-rule");
    match rules.iter().find(|rule| parse_rule(rule).is_none()) {
        Some(bad) => Err(invalid("device-cgroup-rule", bad, format!("invalid device cgroup format '{bad}'"))),
        None => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_docker_reads_them() {
        let read = |text: &str| parse(text).map(|device| [device.host, device.container, device.permissions].join(" "));
        for (text, expected) in [
            ("/dev/fuse", "/dev/fuse /dev/fuse rwm"),
            ("/dev/fuse:r", "/dev/fuse /dev/fuse r"),
            ("/dev/fuse:mw", "/dev/fuse /dev/fuse mw"),
            ("/dev/fuse:/dev/x", "/dev/fuse /dev/x rwm"),
            ("/dev/fuse:/dev/x:rw", "/dev/fuse /dev/x rw"),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for (text, why) in [
            ("", "bad format for path: "),
            (":/dev/x", "bad format for path: :/dev/x"),
            ("/a:/b:r:w", "bad format for path: /a:/b:r:w"),
            ("/dev/fuse:/dev/x:rwx", "bad mode specified: rwx"),
            ("/dev/fuse:/dev/x:", "bad mode specified: "),
            ("/dev/fuse:/dev/x:rr", "bad mode specified: rr"),
            ("/dev/fuse:rwx", "rwx is not an absolute path"),
            ("/dev/fuse:", " is not an absolute path"),
            ("fuse", "fuse is not an absolute path"),
            ("fuse:/dev/fuse", "fuse is not an absolute path"),
            ("vendor.com/class=name", "vendor.com/class=name is not an absolute path"),
        ] {
            assert_eq!(read(text).unwrap_err(), why, "{text}");
        }
    }
}
