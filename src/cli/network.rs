//! `network` and its commands.

mod create;
mod list;

use anyhow::{Context, Result};
use clap::ArgMatches;
use jiff::Timestamp;

use super::confirm::confirm;
use super::output::{self, Codes, Refusal};
use super::spec::{self, Arity, Spec};
use super::{Session, inspect, instant, networking, template};
use crate::container::Attachment;
use crate::engine::network::NetworkFilter;
use crate::engine::request::ConnectRequest;
use crate::error::{Class, Failure};

pub(super) use create::CREATE;
pub(super) use list::LIST;

#[cfg(test)]
pub(super) use create::lower as lower_create;
#[cfg(test)]
pub(super) use list::filters as lower_list;

pub(super) static INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    about: "Display detailed information on one or more networks",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template"))
            .arg(spec::switch("verbose", Some('v'), "Accepted for compatibility: everything is always shown"))
    },
    run: inspect_networks,
};

pub(super) static REMOVE: Spec = Spec {
    name: "rm",
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command.arg(spec::switch("force", Some('f'), "Do not error if the network does not exist")),
    run: remove,
};

pub(super) static PRUNE: Spec = Spec {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::list("filter", None, "filter", "Provide filter values (until, label, label!)"))
            .arg(spec::switch("force", Some('f'), "Do not prompt for confirmation"))
    },
    run: prune,
};

pub(super) static CONNECT: Spec = Spec {
    name: "connect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Connect a container to a network",
    arity: Arity::exactly(2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &["--link-local-ip"],
    flags: |command| {
        networking::endpoint_flags(command)
            .arg(spec::list("alias", None, "strings", "Add network-scoped alias for the container"))
            .arg(spec::list("driver-opt", None, "strings", "Driver options for the network"))
            .arg(spec::value("gw-priority", None, "int", "Highest gw-priority provides the default gateway"))
    },
    run: |session, matches| {
        let request = lower_connect(matches)?;
        session.engine()?.network_connect(&request)?;
        Ok(0)
    },
};

pub(super) static DISCONNECT: Spec = Spec {
    name: "disconnect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    arity: Arity::exactly(2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command.arg(spec::switch("force", Some('f'), "Force the container to disconnect from a network")),
    run: |session, matches| {
        if let [network, container] = spec::operands(matches).as_slice() {
            session.engine()?.network_disconnect(network, container, spec::is_set(matches, "force"))?;
        }
        Ok(0)
    },
};

/// What the flags of `network connect` ask.
pub(super) fn lower_connect(matches: &ArgMatches) -> Result<ConnectRequest> {
    let mut operands = spec::operands(matches).into_iter();
    let network = operands.next().unwrap_or_default();
    let aliases = separated(spec::texts(matches, "alias"));
    if aliases.iter().any(String::is_empty) {
        return Err(spec::invalid("alias", "", "the alias has no name"));
    }
    Ok(ConnectRequest {
        container: operands.next().unwrap_or_default(),
        attachment: Attachment {
            network,
            aliases,
            gateway_priority: spec::integer(matches, "gw-priority")?.unwrap_or(0),
            driver_options: networking::driver_options(matches)?,
            ..networking::fixed_addresses(matches)?
        },
        links: networking::links(matches)?,
    })
}

/// Docker's `strings`: repeated, or joined by commas.
fn separated(texts: Vec<String>) -> Vec<String> {
    texts.iter().flat_map(|text| text.split(',')).map(str::to_owned).collect()
}

fn inspect_networks(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let engine = session.engine()?;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for reference in spec::operands(matches) {
        match engine.network_inspect(&reference) {
            Ok(view) => found.push(view),
            Err(error) => failed.push(error),
        }
    }
    match spec::text(matches, "format").filter(|format| !format.is_empty()) {
        Some(format) => {
            for view in &found {
                let value = serde_json::to_value(view).context("encode the network")?;
                output::print_line(&template::render_object(&format, &value)?)?;
            }
        }
        None => output::print_line(&inspect::indented(&found)?)?,
    }
    let code = i32::from(!failed.is_empty());
    failed.iter().for_each(|error| _ = output::fail(error, "", Codes::Plain));
    Ok(code)
}

fn remove(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let force = spec::is_set(matches, "force");
    let mut code = 0;
    for result in session.engine()?.network_remove(&spec::operands(matches)) {
        match result {
            Ok(name) => match output::print_line(&output::printable(&name)) {
                Err(error) if !output::is_reader_gone(&error) => return Err(error),
                _ => {}
            },
            Err(error) if force && Failure::from_error(&error).class == Class::NotFound => {}
            Err(error) => code = code.max(output::fail(&error, "", Codes::Plain).min(1)),
        }
    }
    Ok(code)
}

/// What the flags of `network prune` ask.
pub(super) fn lower_prune(matches: &ArgMatches, now: Timestamp) -> Result<Vec<NetworkFilter>> {
    let texts = spec::texts(matches, "filter");
    let read = |text: &String| NetworkFilter::parse_prune(text, |moment| instant::parse(moment, now));
    texts.iter().map(|text| read(text).map_err(|why| Refusal::plain(why).into())).collect()
}

fn prune(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let filters = lower_prune(matches, Timestamp::now())?;
    if !spec::is_set(matches, "force") {
        let warning = "WARNING! This will remove all custom networks not used by at least one container.";
        if !confirm(&format!("{warning}\nAre you sure you want to continue?"))? {
            return Ok(0);
        }
    }
    let removed = session.engine()?.network_prune(&filters)?;
    output::print(&pruned(&removed))?;
    Ok(0)
}

pub(super) fn pruned(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let lines: String = names.iter().map(|name| format!("{}\n", output::printable(name))).collect();
    format!("Deleted Networks:\n{lines}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_tells_as_docker_does() {
        assert_eq!(pruned(&[]), "");
        assert_eq!(pruned(&["n1".into(), "n2".into()]), "Deleted Networks:\nn1\nn2\n\n");
    }
}
