//! `doctor`.

use anyhow::Result;
use clap::ArgMatches;

use super::Session;
use super::output::{self, printable};
use super::spec::{self, Arity, Spec};
use crate::engine::doctor::Finding;

pub(super) static DOCTOR: Spec = Spec {
    name: "doctor",
    usage: "[OPTIONS]",
    about: "Find what is not as the records say, such as rules lost with a firewall reload, and repair it",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command.arg(spec::switch("fix", None, "Repair what is found")),
    run: doctor,
};

fn doctor(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let findings = session.engine()?.doctor(spec::is_set(matches, "fix"))?;
    output::print(&report(&findings))?;
    Ok(i32::from(findings.iter().any(|finding| !finding.fixed)))
}

/// A line for each finding.
fn report(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "everything is in order\n".to_owned();
    }
    let line = |finding: &Finding| {
        let Finding { subject, problem, cure, fixed } = finding;
        let state = if *fixed { "fixed".to_owned() } else { format!("cure: {cure}") };
        format!("{}\n", printable(&format!("{subject}: {problem} ({state})")))
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_finding() {
        assert_eq!(report(&[]), "everything is in order\n");
        let finding = Finding {
            subject: "network n1".into(),
            problem: "its rules are gone\n".into(),
            cure: "write them again".into(),
            fixed: false,
        };
        let fixed = Finding { fixed: true, ..finding.clone() };
        assert_eq!(
            report(&[finding, fixed]),
            "network n1: its rules are gone\\n (cure: write them again)\n\
             network n1: its rules are gone\\n (fixed)\n"
        );
    }
}
