//! `list`: a line per container.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::filter::{self, Filter};
use super::{PortSummary, Size, exit_code, health, networking, wording};
use crate::container::handle::{self, Record};
use crate::container::status::Status;
use crate::container::{Config, ContainerId, HealthStatus, MountSource};
use crate::engine::Engine;
use crate::error::{Class, Failure};
use crate::image::Store;
use crate::layout::Layout;

/// Which containers to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Those that do not run, too.
    pub all: bool,
    /// Only the last so many created, whatever their state.
    pub last: Option<usize>,
    /// What they must be like.
    pub filters: Vec<Filter>,
    /// Add up the bytes of their writable layers.
    pub size: bool,
}

/// The answer.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first.
    pub containers: Vec<ContainerSummary>,
    /// What could not be read; the containers concerned are listed as damaged.
    pub problems: Vec<anyhow::Error>,
}

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
    fn damaged(id: &ContainerId) -> Self {
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

    fn new(layout: &Layout, record: &Record) -> Self {
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

    fn is_live(&self) -> bool {
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

impl Engine {
    /// Lists containers, newest first. A container that cannot be read hides no other.
    pub fn list(&self, request: &ListRequest) -> Result<Listing> {
        let filters = filter::resolve(self, &request.filters)?;
        let by_status = request.filters.iter().any(|filter| matches!(filter, Filter::Status(_)));
        let all = request.all || request.last.is_some() || by_status;
        let mut listing = Listing::default();
        for id in handle::ids(&self.layout)? {
            let (summary, layers) = match self.settled(&id) {
                Ok(record) => (ContainerSummary::new(&self.layout, &record), record.config.image.layers),
                Err(error) if Failure::from_error(&error).class == Class::NotFound => continue,
                Err(_) if self.is_being_made(&id) => continue,
                Err(error) => {
                    listing.problems.push(error);
                    (ContainerSummary::damaged(&id), Vec::new())
                }
            };
            if (all || summary.is_live()) && filter::passes(&filters, &summary, &layers) {
                listing.containers.push(summary);
            }
        }
        listing.containers.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        listing.containers.truncate(request.last.unwrap_or(usize::MAX));
        self.check_names(&mut listing.containers);
        if request.size {
            for container in &mut listing.containers {
                container.size = self.size_of(&container.id).ok();
            }
        }
        Ok(listing)
    }

    /// As Docker, tells a container's image by its id where the name by which it was made means another by now, or none.
    fn check_names(&self, containers: &mut [ContainerSummary]) {
        let store = Store::open(&self.layout);
        let mut means: BTreeMap<(String, String), bool> = BTreeMap::new();
        for container in containers.iter_mut().filter(|container| container.created.is_some()) {
            let named = (container.image.clone(), container.image_id.clone());
            if !*means.entry(named).or_insert_with_key(|(name, id)| store.means(name, id)) {
                container.image.clone_from(&container.image_id);
            }
        }
    }

    /// Another process is about to write the record: it holds the lock, or has not come to take it.
    pub(in crate::engine) fn is_being_made(&self, id: &ContainerId) -> bool {
        let directory = self.layout.container(id);
        match File::open(directory.join("lock")) {
            Ok(lock) => matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(_) => {
                let age = directory.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
                matches!(age, Ok(Ok(age)) if age < Duration::from_secs(2))
            }
        }
    }
}
