//! `port`.

use anyhow::Result;
use clap::ArgMatches;

use super::output::{self, Refusal};
use super::spec::{self, Arity, Spec};
use super::{Session, natural};
use crate::engine::query::Ports;

pub(super) static PORT: Spec = Spec {
    name: "port",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "List port mappings or a specific mapping for the container",
    arity: Arity::between(1, 2),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: port,
};

fn port(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let operands = spec::operands(matches);
    let reference = operands.first().map(String::as_str).unwrap_or_default();
    let wanted = operands.get(1).map(String::as_str).unwrap_or_default();
    let ports = session.engine()?.inspect(reference)?.network_settings.ports;
    let lines = lines(&ports, reference, wanted)?;
    if !lines.is_empty() {
        output::print(&format!("{}\n", lines.join("\n")))?;
    }
    Ok(0)
}

/// A line for each host port that leads to the one that is wanted, or to any.
fn lines(ports: &Ports, reference: &str, wanted: &str) -> Result<Vec<String>, Refusal> {
    let mut lines = Vec::new();
    if wanted.is_empty() {
        for (port, bindings) in ports {
            lines.extend(bindings.iter().flatten().map(|binding| format!("{port} -> {}", binding.address())));
        }
    } else {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, ""));
        if !number.bytes().all(|byte| byte.is_ascii_digit()) || number.parse::<u16>().is_err() {
            return Err(Refusal::plain(format!("Error: invalid port ({number})")));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        let bindings = ports.get(&format!("{number}/{protocol}")).and_then(Option::as_ref);
        lines.extend(bindings.into_iter().flatten().map(|binding| binding.address()));
        if lines.is_empty() {
            return Err(Refusal::plain(format!("Error: No public port '{wanted}' published for {reference}")));
        }
    }
    lines.sort_by(|a, b| natural::order(a, b));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::query::PortBindingView;

    #[test]
    fn lines_are_dockers() {
        let binding = |text: &str| PortBindingView::of(text.parse().unwrap());
        let ports = Ports::from([
            ("80/tcp".to_owned(), Some(vec![binding("0.0.0.0:8080"), binding("[::]:8080")])),
            ("443/tcp".to_owned(), Some(vec![binding("127.0.0.1:1443")])),
            ("90/tcp".to_owned(), None),
        ]);
        let shown = |wanted: &str| lines(&ports, "web", wanted);
        assert_eq!(shown("").unwrap(), ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080", "443/tcp -> 127.0.0.1:1443"]);
        assert_eq!(shown("80").unwrap(), ["0.0.0.0:8080", "[::]:8080"]);
        assert_eq!(shown("443/tcp").unwrap(), ["127.0.0.1:1443"]);
        for wanted in ["90", "90/tcp", "80/udp", "81", "80/foo"] {
            let refusal = shown(wanted).unwrap_err();
            assert_eq!(refusal.message, format!("Error: No public port '{wanted}' published for web"));
            assert_eq!(refusal.code, 1);
        }
        for (wanted, number) in [("abc", "abc"), ("99999", "99999"), ("+80/tcp", "+80"), ("/tcp", "")] {
            assert_eq!(shown(wanted).unwrap_err().message, format!("Error: invalid port ({number})"));
        }
    }
}
