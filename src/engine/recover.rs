//! Healing and removal: what is done under the lock when a shim did not live to do it, and how a
//! container disappears.
//!
//! There is no daemon that notices a crash; the next command that touches a container does
//! (`docs/state.md` has the table of who dies when, what is left and who repairs it).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::events::{Action, Kind};
use super::{Engine, resources};
use crate::cgroup::{Cgroups, Group, Place};
use crate::container::handle::{self, Locked};
use crate::container::status::{self, Status};
use crate::container::{Config, ContainerId, MountSource, State, names};
use crate::storage::volume::Volumes;
use crate::store;
use crate::sys::{process, tree};

/// Exit code recorded when nobody lived to see the real one.
pub const UNKNOWN_EXIT: i32 = 255;
/// The error recorded with it when only the container's supervisor was killed.
pub const SUPERVISOR_KILLED: &str = "its supervisor was killed, so its exit code is not known";
/// The error recorded with it when the container had been started in an earlier boot.
pub const MACHINE_RESTARTED: &str = "the machine was restarted while it ran, so its exit code is not known";
/// Error recorded when the supervisor of a container that waited to be started again was killed.
pub const RESTARTER_KILLED: &str = "its supervisor was killed before it had started the container again";

impl Engine {
    /// Locks a container whose record is true: a shim that is about to write down the end is
    /// waited for, an end that nobody will write down is written down here. `None`: what was left
    /// of it had to be removed, and is.
    pub fn lock_settled(&self, id: &ContainerId) -> Result<Option<Locked>> {
        loop {
            let mut container = Locked::acquire(self.layout(), id)?;
            let record = container.record();
            let alive = record.liveness();
            if !container.state.status.is_live() || alive.init {
                return Ok(Some(container));
            }
            if alive.shim
                && let Some(run) = container.state.init
            {
                // The lock must be free for the shim to record the end.
                drop(container);
                self.await_end(id, run)?;
                continue;
            }
            if status::is_orphaned(&container.state, alive) {
                self.heal(&mut container)?;
                if container.config.auto_remove {
                    self.discard(&mut container)?;
                    drop(container);
                    self.sweep_trash();
                    return Ok(None);
                }
            }
            return Ok(Some(container));
        }
    }

    /// Does the clean-up of a shim that was killed and writes down the end of its container.
    fn heal(&self, container: &mut Locked) -> Result<()> {
        self.discard_cgroup(container.id())?;
        container.state.endpoints.clear();
        self.release_by_owner(&container.config)?;
        let _ = fs::remove_file(self.layout().socket(container.id()));
        let rebooted = container.state.boot_id != process::boot_id();
        container.state.error = if container.state.status == Status::Restarting {
            // Nothing ran: code and time of the end are those of the last run.
            RESTARTER_KILLED.into()
        } else {
            container.state.exit_code = UNKNOWN_EXIT;
            container.state.finished = Some(Timestamp::now());
            if rebooted { MACHINE_RESTARTED } else { SUPERVISOR_KILLED }.into()
        };
        container.state.hint = None;
        container.state.init = None;
        container.state.shim = None;
        // The end of the run before a wait has been told.
        let untold = container.state.status != Status::Restarting;
        container.transition(Status::Exited)?;
        if untold {
            self.note(&container.config, Action::died(&container.state));
        }
        Ok(())
    }

    /// Removes the cgroup of a container that does not run: a shim that was killed before it had
    /// recorded anything has left it.
    pub fn discard_cgroup(&self, id: &ContainerId) -> Result<()> {
        // Without a record nobody knows of another parent; a container with one has its record.
        let place = match handle::load(self.layout(), id) {
            Ok(record) => resources::place(&record.config)?,
            Err(_) => Place::new("", id.as_str())?,
        };
        let group = Cgroups::detect()?.group(&place);
        group.kill_all()?;
        group.remove()
    }

    /// Makes a container disappear, and tells it. True when there is something to sweep.
    pub fn discard(&self, container: &mut Locked) -> Result<bool> {
        let removed = self.take_away(container)?;
        self.note(&container.config, Action::Destroy);
        Ok(removed)
    }

    /// Makes a container disappear that has just ended or did not start, and tells both. Told when it
    /// is gone: whoever found it after a kill in between would record its end, and tell it, once more.
    pub fn discard_ended(&self, container: &mut Locked) -> Result<bool> {
        let removed = self.take_away(container);
        self.note(&container.config, Action::died(&container.state));
        if removed.is_ok() {
            self.note(&container.config, Action::Destroy);
        }
        removed
    }

    /// Makes a container disappear: name first, then its directories, renamed away in microseconds
    /// and deleted later ([`Engine::sweep_trash`]). Interrupted anywhere, it can be repeated.
    pub fn take_away(&self, container: &mut Locked) -> Result<bool> {
        let anonymous: Vec<String> = if container.config.auto_remove { anonymous_volumes(container) } else { vec![] };
        let id = container.id().clone();
        names::release(self.layout(), &container.config.name, &id)?;
        self.discard_directories(&id)?;
        self.remove_volumes(&anonymous);
        Ok(true)
    }

    /// Removes anonymous volumes of a container (`rm -v`, `--rm`).
    pub fn remove_volumes(&self, volumes: &[String]) {
        let store = Volumes::open(self.layout());
        for name in volumes {
            // One that another container still uses (`--volumes-from`) is not to be had; nothing lost.
            if store.remove(name).is_ok() {
                self.note_object(Kind::Volume, name, "destroy", &[("driver", "local".into())]);
            }
        }
    }

    /// Renames what belongs to `id` into the trash. The overlay goes first: while the record is
    /// there, the rest can be found again.
    pub fn discard_directories(&self, id: &ContainerId) -> Result<()> {
        let layout = self.layout();
        let _ = fs::remove_file(layout.socket(id));
        for (from, kind) in [(layout.container_overlay(id), "overlay"), (layout.container(id), "container")] {
            let to = layout.trash().join(trash_name(id, kind));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", from.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes this process's trash, and that of processes that did not live to do it. A container's rules
    /// and cgroup go first: while its directory is in the trash, somebody knows that there may be some.
    pub fn sweep_trash(&self) {
        let Ok(trash) = File::open(self.layout().trash()) else { return };
        let mut cgroups = None;
        for entry in fs::read_dir(self.layout().trash()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let deleter = name.to_str().and_then(deleter_of);
            let alive = deleter.is_some_and(|(pid, start)| process::start_time(pid) == Some(start));
            let own = deleter.is_some_and(|(pid, _)| pid == std::process::id() as i32);
            if alive && !own {
                continue;
            }
            if let Some((id, _)) = name.to_str().and_then(|name| name.split_once(".container."))
                && let Err(error) = self.release_discarded(&entry.path(), id)
            {
                tracing::debug!("{error:#}");
                continue;
            }
            if let Some((id, _)) = name.to_str().and_then(|name| name.split_once(".container."))
                && let Ok(cgroups) = cgroups.get_or_insert_with(Cgroups::detect)
                && let Err(error) =
                    self.place_of(&entry.path(), id).and_then(|place| discard_group(&cgroups.group(&place)))
            {
                // Left for the next sweep.
                tracing::debug!("{error:#}");
                continue;
            }
            delete(&trash, &name);
        }
    }

    /// Gives back what led to the published ports of a container in the trash.
    fn release_discarded(&self, directory: &Path, id: &str) -> Result<()> {
        let state = store::read_json::<State>(&directory.join("state.json")).ok().flatten();
        let mut endpoints = state.map(|state| state.endpoints).unwrap_or_default();
        endpoints.retain(|endpoint| !endpoint.published.is_empty());
        match ContainerId::parse(id) {
            Some(id) => self.release(&id, &endpoints),
            None => Ok(()),
        }
    }

    /// Where the cgroup of a container in the trash lies: what is left of its record tells of another parent.
    fn place_of(&self, directory: &Path, id: &str) -> Result<Place> {
        let config = store::read_json::<Config>(&directory.join("config.json")).ok().flatten();
        config.map_or_else(|| Place::new("", id), |config| resources::place(&config))
    }

    /// Every orphan of this data root, healed: called by commands that change things anyway.
    pub fn heal_name_holder(&self, name: &str) -> Result<()> {
        if let Some(id) = names::holder(self.layout(), name)?
            && let Ok(record) = handle::load(self.layout(), &id)
            && status::is_orphaned(&record.state, record.liveness())
        {
            self.lock_settled(&id)?;
        }
        Ok(())
    }
}

/// Removes a cgroup. All members have gone with their PID namespace, as a rule; killing is for those
/// that somebody moved in, or that shared another's.
pub fn discard_group(group: &Group) -> Result<()> {
    group.remove().or_else(|_| {
        group.kill_all()?;
        group.remove()
    })
}

/// Names of the volumes that were made for this container alone.
pub fn anonymous_volumes(container: &Locked) -> Vec<String> {
    container
        .config
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { name, anonymous: true, .. } => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// `<id>.<kind>.<pid>-<start time>` of the process that will delete it.
fn trash_name(id: &ContainerId, kind: &str) -> PathBuf {
    let pid = std::process::id() as i32;
    PathBuf::from(format!("{id}.{kind}.{pid}-{}", process::start_time(pid).unwrap_or_default()))
}

fn deleter_of(name: &str) -> Option<(i32, u64)> {
    let (pid, start) = name.rsplit('.').next()?.split_once('-')?;
    Some((pid.parse().ok()?, start.parse().ok()?))
}

/// Deletes what a container's processes have filled, however deep they made it.
fn delete(trash: &File, name: &OsStr) {
    if let Err(error) = tree::remove(trash.as_fd(), name.as_bytes()) {
        tracing::debug!("delete {}: {error}", name.display());
    }
}
