//! `container prune` and `system prune`: what is not used any more goes, and how much that was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Engine;
use super::events::Kind;
use super::lifecycle::is_not_found;
use super::request::RemoveRequest;
use crate::container::status::Status;
use crate::container::{ContainerId, MountSource, handle};
use crate::storage::volume::{self, Volumes};
use crate::sys::tree;

/// What was removed.
#[derive(Debug)]
pub struct Pruned<T> {
    /// Each, in order.
    pub removed: Vec<T>,
    /// Bytes that were freed on disk.
    pub bytes: u64,
    /// What could not be removed.
    pub problems: Vec<anyhow::Error>,
}

impl<T> Default for Pruned<T> {
    fn default() -> Self {
        Pruned { removed: Vec::new(), bytes: 0, problems: Vec::new() }
    }
}

/// What an object must be like to be pruned. All must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneFilter {
    /// Made before this moment.
    Until(Timestamp),
    /// The label exists, with this value if one is given.
    Label(String, Option<String>),
    /// The label does not exist, or not with this value.
    NotLabel(String, Option<String>),
}

impl PruneFilter {
    /// Reads `key=value`; the error says what is wrong. `moment` reads a time or a distance from now.
    pub fn parse(text: &str, moment: impl Fn(&str) -> Option<Timestamp>) -> Result<PruneFilter, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let label = |kind: fn(String, Option<String>) -> PruneFilter| match value.split_once('=') {
            Some((name, value)) => kind(name.to_owned(), Some(value.to_owned())),
            None => kind(value.to_owned(), None),
        };
        match key.as_str() {
            "label" => Ok(label(PruneFilter::Label)),
            "label!" => Ok(label(PruneFilter::NotLabel)),
            "until" => moment(value).map(PruneFilter::Until).ok_or_else(|| {
                format!("invalid filter 'until={value}': write a time (2013-01-02T13:23:37Z) or a duration (42m)")
            }),
            _ => Err(format!("invalid filter '{key}'")),
        }
    }
}

/// Whether all filters hold for something made at `created`; what has no time is older than any.
pub(in crate::engine) fn selects(
    filters: &[PruneFilter],
    created: Option<Timestamp>,
    labels: &BTreeMap<String, String>,
) -> bool {
    let has = |name: &String, value: &Option<String>| {
        labels.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
    };
    filters.iter().all(|filter| match filter {
        PruneFilter::Until(moment) => created.is_some_and(|created| created < *moment),
        PruneFilter::Label(name, value) => has(name, value),
        PruneFilter::NotLabel(name, value) => !has(name, value),
    })
}

impl Engine {
    /// Removes all containers that do not run; their ids. Their volumes stay.
    pub fn container_prune(&self, filters: &[PruneFilter]) -> Result<Pruned<String>> {
        let mut pruned = Pruned::default();
        for id in handle::ids(&self.layout)? {
            // What cannot be read is for `rm -f`, which is told what it does.
            let Ok(record) = handle::load(&self.layout, &id) else { continue };
            let config = &record.config;
            if record.status().is_live() || !selects(filters, Some(config.created), &config.labels) {
                continue;
            }
            let bytes = self.container_usage(&id)?;
            match self.remove(&[id.to_string()], RemoveRequest { force: false, volumes: false }).remove(0) {
                Ok(()) => {
                    pruned.bytes += bytes;
                    pruned.removed.push(id.to_string());
                }
                Err(error) if is_not_found(&error) => {}
                // Started meanwhile: then it is in use.
                Err(_) if handle::load(&self.layout, &id).is_ok_and(|record| record.status() != Status::Exited) => {}
                Err(error) => pruned.problems.push(error),
            }
        }
        self.sweep_trash();
        self.note_object(Kind::Container, "", "prune", &[("reclaimed", pruned.bytes.to_string())]);
        Ok(pruned)
    }

    /// Bytes on disk of all that a container has: its writable layer, its log, its records.
    pub(super) fn container_usage(&self, id: &ContainerId) -> Result<u64> {
        let mut bytes = 0;
        for path in [self.layout.container_overlay(id), self.layout.container(id)] {
            bytes += tree::usage(&path).with_context(|| format!("add up {}", path.display()))?.disk;
        }
        Ok(bytes)
    }

    /// Removes anonymous volumes that no container has; their names.
    ///
    /// # Errors
    /// A container whose record cannot be read: nobody knows which volumes it has, so none is removed.
    pub fn anonymous_volume_prune(&self) -> Result<Pruned<String>> {
        let volumes = Volumes::open(&self.layout);
        let mut candidates = Vec::new();
        let directory = self.layout.volumes();
        for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
            let name = entry.with_context(|| format!("read {}", directory.display()))?.file_name();
            let Some(name) = name.to_str() else { continue };
            if volumes.record(name).ok().flatten().is_some_and(|record| record.kind == volume::Kind::Anonymous) {
                candidates.push(name.to_owned());
            }
        }
        // After the volumes: one that is made now is recorded with its container before it is made itself.
        let used = self.volumes_of_containers()?;
        let mut pruned = Pruned::default();
        for name in candidates.into_iter().filter(|name| !used.contains(name)) {
            let path = directory.join(&name);
            let bytes = tree::usage(&path).with_context(|| format!("add up {}", path.display()))?.disk;
            match volumes.remove(&name) {
                Ok(()) => {
                    self.note_object(Kind::Volume, &name, "destroy", &[("driver", "local".into())]);
                    pruned.bytes += bytes;
                    pruned.removed.push(name);
                }
                Err(error) => pruned.problems.push(error),
            }
        }
        self.note_object(Kind::Volume, "", "prune", &[("reclaimed", pruned.bytes.to_string())]);
        Ok(pruned)
    }

    fn volumes_of_containers(&self) -> Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for id in handle::ids(&self.layout)? {
            let record = match handle::load(&self.layout, &id) {
                Ok(record) => record,
                Err(error) if is_not_found(&error) || self.is_being_made(&id) => continue,
                Err(error) => return Err(error.context("prune volumes")),
            };
            used.extend(record.config.mounts.into_iter().filter_map(|mount| match mount.source {
                MountSource::Volume { name, .. } => Some(name),
                MountSource::Host(_) => None,
            }));
        }
        Ok(used)
    }
}
