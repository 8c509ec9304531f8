//! Finding a container, reading its record, and the only value that may write one.
//!
//! Readers take no lock and write nothing: they read the two documents and ask the kernel whether
//! the processes named there exist ([`Record::status`]). Writers hold a [`Locked`], whose `save_*`
//! methods are the only way to change a record.

use std::cell::OnceCell;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};

use super::status::{self, Liveness, Status};
use super::{Config, ContainerId, ProcessRef, State, names};
use crate::error::Failure;
use crate::layout::Layout;
use crate::store::{self, Durability, Lock};
use crate::sys::process;

/// A container's two documents as they were read.
#[derive(Debug, Clone)]
pub struct Record {
    /// What was asked for.
    pub config: Config,
    /// What was last recorded.
    pub state: State,
    liveness: OnceCell<Liveness>,
}

impl Record {
    /// Pairs the two documents.
    pub fn new(config: Config, state: State) -> Self {
        Record { config, state, liveness: OnceCell::new() }
    }

    /// What the kernel says of the container's processes; asked once.
    pub fn liveness(&self) -> Liveness {
        *self.liveness.get_or_init(|| liveness(&self.state))
    }

    /// The status that is true now.
    pub fn status(&self) -> Status {
        if self.state.status.is_live() { status::effective(&self.state, self.liveness()) } else { self.state.status }
    }

    /// The first process, if it exists now.
    pub fn live_init(&self) -> Option<ProcessRef> {
        if self.status().is_live() { self.state.init.filter(|_| self.liveness().init) } else { None }
    }
}

/// Asks the kernel whether the processes named in `state` exist: same boot, same pid, same start time.
pub fn liveness(state: &State) -> Liveness {
    if state.boot_id != process::boot_id() {
        return Liveness { init: false, shim: false };
    }
    let exists = |reference: Option<ProcessRef>| {
        reference.is_some_and(|r| process::start_time(r.pid).is_some_and(|start| start == r.start_time))
    };
    let init = exists(state.init);
    // Whether the shim exists matters only once the container has ended.
    Liveness { init, shim: !init && exists(state.shim) }
}

/// Resolves a name, a full id or an unambiguous prefix of an id, in that order of precedence
/// (a full id first, as Docker does).
pub fn find(layout: &Layout, reference: &str) -> Result<ContainerId> {
    // A leading slash is how Docker's inspect shows names; scripts paste it back.
    let reference = reference.strip_prefix('/').unwrap_or(reference);
    if let Some(id) = ContainerId::parse(reference).filter(|id| layout.container(id).exists()) {
        return Ok(id);
    }
    if names::validate(reference).is_ok()
        && let Some(id) = names::holder(layout, reference)?
    {
        return Ok(id);
    }
    let prefix = !reference.is_empty() && reference.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut matches = if prefix { ids(layout)? } else { Vec::new() };
    matches.retain(|id| id.as_str().starts_with(reference));
    match matches.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::not_found(format!("No such container: {reference}")).into()),
        several => {
            let list: Vec<&str> = several.iter().map(ContainerId::short).collect();
            Err(Failure::conflict(format!("the id prefix {reference} is ambiguous: it matches {}", list.join(", ")))
                .with_hint("give more digits")
                .into())
        }
    }
}

/// Every container's id, in no order.
pub fn ids(layout: &Layout) -> Result<Vec<ContainerId>> {
    let directory = layout.containers();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("list {}", directory.display())),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", directory.display()))?;
        ids.extend(entry.file_name().to_str().and_then(ContainerId::parse));
    }
    Ok(ids)
}

/// Reads a container's record. A record that is missing or damaged is an error that names the file.
pub fn load(layout: &Layout, id: &ContainerId) -> Result<Record> {
    let directory = layout.container(id);
    let config = store::read_json::<Config>(&directory.join("config.json"))?;
    let state = store::read_json::<State>(&directory.join("state.json"))?;
    match (config, state) {
        (Some(config), Some(state)) => Ok(Record::new(config, state)),
        _ if !directory.exists() => Err(no_such(id)),
        (None, _) => Err(damaged(id, "config.json")),
        (_, None) => Err(damaged(id, "state.json")),
    }
}

fn no_such(id: &ContainerId) -> anyhow::Error {
    Failure::not_found(format!("No such container: {id}")).into()
}

fn damaged(id: &ContainerId, file: &str) -> anyhow::Error {
    Failure::engine(format!("container {} has no {file}: its creation was interrupted", id.short()))
        .with_hint(format!("remove what is left of it: mydocker rm -f {}", id.short()))
        .into()
}

/// A container under its lock: the only value that can write its record.
#[derive(Debug)]
pub struct Locked {
    layout: Layout,
    id: ContainerId,
    /// What was asked for; change with [`Locked::save_config`].
    pub config: Config,
    /// What was last recorded; change with [`Locked::save_state`].
    pub state: State,
    lock: Lock,
}

impl Locked {
    /// Waits for the container's lock and reads the record under it.
    pub fn acquire(layout: &Layout, id: &ContainerId) -> Result<Locked> {
        let lock = lock(layout, id)?;
        let record = load(layout, id)?;
        Ok(Locked { layout: layout.clone(), id: id.clone(), config: record.config, state: record.state, lock })
    }

    /// Makes a new container's directory and returns it locked; nothing is recorded and no name
    /// claimed yet.
    pub fn create(layout: &Layout, config: Config, state: State) -> Result<Locked> {
        let id = config.id.clone();
        let directory = layout.container(&id);
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        let made = lock(layout, &id);
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        Ok(Locked { lock: made?, layout: layout.clone(), id, config, state })
    }

    /// The container's id.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The lock itself, to be kept across a fork.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Writes the state document.
    pub fn save_state(&self) -> Result<()> {
        let path = self.layout.container(&self.id).join("state.json");
        store::write_json(&path, &self.state, Durability::ProcessCrash)
    }

    /// Writes the config document.
    pub fn save_config(&self) -> Result<()> {
        let path = self.layout.container(&self.id).join("config.json");
        store::write_json(&path, &self.config, Durability::ProcessCrash)
    }

    /// Changes the status, refusing what the table in [`status`] does not allow, and writes it.
    pub fn transition(&mut self, next: Status) -> Result<()> {
        if !self.state.status.may_become(next) {
            return Err(Failure::engine(format!(
                "container {} is {} and cannot become {next}",
                self.config.name, self.state.status
            ))
            .into());
        }
        self.state.status = next;
        self.save_state()
    }

    /// The record as a reader would see it.
    pub fn record(&self) -> Record {
        Record::new(self.config.clone(), self.state.clone())
    }
}

/// Waits for a container's lock without reading its record, for removal of damaged ones.
pub fn lock(layout: &Layout, id: &ContainerId) -> Result<Lock> {
    Lock::acquire(&layout.container(id).join("lock"))?.ok_or_else(|| no_such(id))
}
