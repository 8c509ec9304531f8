//! `list`: a line per container.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::time::Duration;

use anyhow::Result;

use super::filter::{self, Filter};
use super::summary::ContainerSummary;
use crate::container::ContainerId;
use crate::container::handle;
use crate::engine::Engine;
use crate::error::{Class, Failure};
use crate::image::Store;

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
