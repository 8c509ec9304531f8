//! `doctor`: what is not as the records say it should be, and putting it right.
//!
//! Every command heals what it touches; this walks everything. It looks at containers that nobody
//! has touched since their supervisor was killed, at what networks have in the kernel (devices,
//! rules), and at addresses that nobody uses any more.

use anyhow::Result;

use super::Engine;
use crate::container::handle::{self, Record};
use crate::container::status;
use crate::error::{Class, Failure};
use crate::net::firewall::{Publication, Subject};
use crate::net::link::{self, Links};
use crate::net::{Driver, Network, bridge};

/// Something that is not in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `network n1`, `container web`, ….
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
    /// What puts it right.
    pub cure: String,
    /// That has been done.
    pub fixed: bool,
}

/// What the command says of findings that it puts right itself.
const CURE: &str = "mydocker doctor --fix";

impl Finding {
    fn new(subject: impl Into<String>, problem: impl Into<String>, fixed: bool) -> Finding {
        Finding { subject: subject.into(), problem: problem.into(), cure: CURE.into(), fixed }
    }
}

impl Engine {
    /// Compares what there is with what the records say. With `fix` what can be put right is.
    pub fn doctor(&self, fix: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let running = self.examine_containers(fix, &mut findings)?;
        let listing = self.networks().list()?;
        for problem in &listing.problems {
            let cure = "remove the file, and make the network anew".to_owned();
            findings.push(Finding { subject: "networks".into(), problem: format!("{problem:#}"), cure, fixed: false });
        }
        self.examine_devices(fix, &listing.networks, &running, &mut findings)?;
        self.examine_rules(fix, &listing.networks, &running, &mut findings)?;
        self.examine_addresses(fix, &listing.networks, &mut findings)?;
        Ok(findings)
    }

    /// Containers whose supervisor did not live to record their end. Those that run come back.
    fn examine_containers(&self, fix: bool, findings: &mut Vec<Finding>) -> Result<Vec<Record>> {
        let mut running = Vec::new();
        for id in handle::ids(self.layout())? {
            let record = match handle::load(self.layout(), &id) {
                Ok(record) => record,
                Err(error) if Failure::from_error(&error).class == Class::NotFound => continue,
                Err(_) if self.is_being_made(&id) => continue,
                Err(error) => {
                    findings.push(Finding {
                        subject: format!("container {}", id.short()),
                        problem: format!("{error:#}"),
                        cure: format!("mydocker rm -f {}", id.short()),
                        fixed: false,
                    });
                    continue;
                }
            };
            let liveness = record.liveness();
            if status::is_orphaned(&record.state, liveness) {
                let problem = "its supervisor was killed, and nobody has cleaned up after it";
                let fixed = fix && self.lock_settled(&id).is_ok();
                findings.push(Finding::new(format!("container {}", record.config.name), problem, fixed));
            } else if liveness.init && record.status().is_live() {
                running.push(record);
            }
        }
        if fix {
            self.sweep_trash();
        }
        Ok(running)
    }

    /// Bridges that are missing although containers use them, and such as no network knows.
    fn examine_devices(
        &self,
        fix: bool,
        networks: &[Network],
        running: &[Record],
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let mut links = Links::open()?;
        for (device, index, id) in bridge::marked(&mut links, &self.firewall())? {
            if networks.iter().any(|network| network.id == id && network.device == device) {
                continue;
            }
            let fixed = fix && links.carry_out(vec![link::delete(index)]).is_ok();
            findings.push(Finding::new(format!("device {device}"), "its network was removed", fixed));
        }
        for network in networks.iter().filter(|network| network.driver == Driver::Bridge) {
            let ports: Vec<String> = running
                .iter()
                .flat_map(|record| &record.state.endpoints)
                .filter(|endpoint| endpoint.network_id == network.id)
                .filter_map(|endpoint| endpoint.host_interface.clone())
                .collect();
            // Made when a container first needs it.
            if ports.is_empty() {
                continue;
            }
            let bridge = bridge::find(network, &self.firewall())?;
            let devices = links.devices()?;
            let loose: Vec<&String> = ports
                .iter()
                .filter(|port| {
                    devices
                        .iter()
                        .any(|device| device.name == **port && (bridge.is_none() || device.controller != bridge))
                })
                .collect();
            if bridge.is_some() && loose.is_empty() {
                continue;
            }
            let problem = match bridge {
                None => format!("its bridge {} is gone or down, and containers are to be on it", network.device),
                Some(_) => format!("{} of its containers are not connected to {}", loose.len(), network.device),
            };
            let fixed = fix && self.reconnect(&mut links, network, &loose).is_ok();
            findings.push(Finding::new(format!("network {}", network.name), problem, fixed));
        }
        Ok(())
    }

    fn reconnect(&self, links: &mut Links, network: &Network, ports: &[&String]) -> Result<()> {
        let lock = self.networks().lock()?;
        let Some(index) = self.raise(&lock, network, &mut Vec::new())? else { return Ok(()) };
        let isolated = bridge::is_isolating(network);
        links.carry_out(
            ports.iter().flat_map(|port| [link::port(port, index), link::port_flags(port, isolated)]).collect(),
        )
    }

    /// Rules: somebody may have flushed the firewall since they were written.
    fn examine_rules(
        &self,
        fix: bool,
        networks: &[Network],
        running: &[Record],
        findings: &mut Vec<Finding>,
    ) -> Result<()> {
        let mut raised = Vec::new();
        for network in networks.iter().filter(|network| network.driver == Driver::Bridge) {
            if bridge::find(network, &self.firewall())?.is_some() {
                raised.push(network.clone());
            }
        }
        let firewall = self.firewall();
        if !firewall.is_available() {
            if !raised.is_empty() {
                findings.push(Finding {
                    subject: "firewall".into(),
                    problem: "iptables is not installed: containers reach each other and the host, and nothing else"
                        .into(),
                    cure: "install it (apt-get install iptables, or the like), then run: mydocker doctor --fix".into(),
                    fixed: false,
                });
            }
            return Ok(());
        }
        let publications: Vec<Publication> = running
            .iter()
            .flat_map(|record| record.state.endpoints.iter().map(|endpoint| (record.config.id.as_str(), endpoint)))
            .filter(|(_, endpoint)| !endpoint.published.is_empty())
            .filter_map(|(owner, endpoint)| {
                let network = networks.iter().find(|network| network.id == endpoint.network_id)?.clone();
                Some(Publication { owner: owner.to_owned(), network, ports: endpoint.published.clone() })
            })
            .collect();
        let problems = firewall.check(&raised, &publications)?;
        if fix {
            for network in &raised {
                bridge::open_to_the_outside(network, &firewall)?;
            }
            firewall.repair(&raised, &publications)?;
        }
        // Rules of a network whose bridge is not there now do no harm, and it finds them when it is made.
        let known = |id: &str| networks.iter().any(|network| network.id.starts_with(id));
        for problem in problems {
            if matches!(&problem.subject, Subject::Gone(id) if known(id)) {
                continue;
            }
            let subject = match &problem.subject {
                Subject::Base => "firewall".to_owned(),
                Subject::Network(name) => format!("network {name}"),
                Subject::Owner(id) => {
                    let record = running.iter().find(|record| record.config.id.as_str() == id);
                    format!("container {}", record.map_or(id.as_str(), |record| &record.config.name))
                }
                Subject::Gone(name) => format!("firewall, {name}"),
            };
            let family = if problem.ipv6 { "IPv6 rules" } else { "rules" };
            let text = match (problem.missing, problem.stray) {
                (0, stray) => format!("{stray} {family} are left over"),
                (missing, 0) => format!("{missing} {family} are missing"),
                (missing, stray) => format!("{missing} {family} are missing, {stray} are left over"),
            };
            findings.push(Finding::new(subject, text, fix));
        }
        Ok(())
    }

    /// Addresses that containers have not given back.
    fn examine_addresses(&self, fix: bool, networks: &[Network], findings: &mut Vec<Finding>) -> Result<()> {
        for network in networks {
            let leases = self.networks().leases(network)?;
            let stale = leases.iter().filter(|(_, owner)| !self.uses_networks(owner)).count();
            if stale == 0 {
                continue;
            }
            let fixed = fix && {
                let lock = self.networks().lock()?;
                self.sweep(&lock, network).is_ok()
            };
            let problem = format!("{stale} of its addresses belong to containers that do not run");
            findings.push(Finding::new(format!("network {}", network.name), problem, fixed));
        }
        Ok(())
    }
}
