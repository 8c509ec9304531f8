//! A container as listings show it, from its record.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use super::{PortSummary, Size, exit_code, health, networking};
use crate::container::handle::Record;
use crate::container::status::Status;
use crate::container::{Config, ContainerId, HealthStatus, MountSource};
use crate::engine::wording;
use crate::layout::Layout;

/// A container as listings show it.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSummary {
    /// Its id.
    pub id: ContainerId,
    /// Its name; empty when damaged.
    pub name: String,
    /// The image as the user named it; its id where that name means it no more.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Entrypoint and command.
    pub command: Vec<String>,
    /// When it was created; `None` when damaged.
    pub created: Option<Timestamp>,
    /// What became of it.
    pub condition: Condition,
    /// Whether it does what it is for; `None` when nobody has asked for that.
    pub health: Option<HealthStatus>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its mounts.
    pub mounts: Vec<MountSummary>,
    /// Its networks' names, in the order of the devices.
    pub networks: Vec<String>,
    /// Those networks' ids where it is connected now.
    pub network_ids: Vec<String>,
    /// Its addresses, in the order of the devices.
    pub addresses: Vec<IpAddr>,
    /// Its ports, published and exposed, when it runs.
    pub ports: Vec<PortSummary>,
    /// Pid of the first process on the host, when it runs.
    pub pid: Option<i32>,
    /// Bytes, when they were asked for.
    pub size: Option<Size>,
}

/// What became of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// As its record and the kernel say.
    Known {
        /// The true status.
        status: Status,
        /// The last exit code.
        exit_code: i32,
        /// When it last began.
        started: Option<Timestamp>,
        /// When it last ended.
        finished: Option<Timestamp>,
    },
    /// Its record cannot be read.
    Damaged,
}

/// A mount as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSummary {
    /// Volume name or host path.
    pub name: String,
    /// Path inside.
    pub target: String,
    /// It is a volume.
    pub volume: bool,
}

impl ContainerSummary {
    pub(super) fn damaged(id: &ContainerId) -> Self {
        ContainerSummary {
            id: id.clone(),
            name: String::new(),
            image: String::new(),
            image_id: String::new(),
            command: Vec::new(),
            created: None,
            condition: Condition::Damaged,
            health: None,
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            networks: Vec::new(),
            network_ids: Vec::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            pid: None,
            size: None,
        }
    }

    pub(super) fn new(layout: &Layout, record: &Record) -> Self {
        let config = &record.config;
        ContainerSummary {
            id: config.id.clone(),
            name: config.name.clone(),
            image: config.image.name.clone(),
            image_id: config.image.id.clone(),
            command: config.process.entrypoint.iter().chain(&config.process.command).cloned().collect(),
            created: Some(config.created),
            condition: Condition::Known {
                status: record.status(),
                exit_code: exit_code(record),
                started: record.state.started,
                finished: record.state.finished,
            },
            health: health::of(layout, record).map(|health| health.status),
            labels: config.labels.clone(),
            mounts: mounts(config),
            networks: networking::names(record),
            network_ids: networking::endpoints(record).iter().map(|endpoint| endpoint.network_id.clone()).collect(),
            addresses: networking::addresses(record),
            ports: networking::ports(record),
            pid: record.live_init().map(|process| process.pid),
            size: None,
        }
    }

    /// The `STATUS` column.
    pub fn status_text(&self, now: Timestamp) -> String {
        match self.condition {
            Condition::Damaged => "Damaged".to_owned(),
            Condition::Known { status, exit_code, started, finished } => {
                let text = wording::status(status, exit_code, started, finished, now);
                match self.health {
                    Some(health) if matches!(status, Status::Starting | Status::Running) => {
                        format!("{text} ({})", health.in_words())
                    }
                    _ => text,
                }
            }
        }
    }

    /// One word: `running`, `exited`, ….
    pub fn state(&self) -> &'static str {
        match self.condition {
            Condition::Damaged => "damaged",
            Condition::Known { status, .. } => status.as_str(),
        }
    }

    /// The exit code of a container that has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.condition {
            Condition::Known { status: Status::Exited, exit_code, .. } => Some(exit_code),
            _ => None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.condition, Condition::Known { status, .. } if status.is_live())
    }
}

fn mounts(config: &Config) -> Vec<MountSummary> {
    let summary = |mount: &crate::container::Mount| {
        let (name, volume) = match &mount.source {
            MountSource::Host(path) => (path.clone(), false),
            MountSource::Volume { name, .. } => (name.clone(), true),
        };
        MountSummary { name, target: mount.target.clone(), volume }
    };
    config.mounts.iter().map(summary).collect()
}
