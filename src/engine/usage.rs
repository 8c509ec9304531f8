//! `system df`: what the data root occupies, by what it is for.
//!
//! Everything below the data root is counted exactly once, and what nobody has a use for is told by name, so
//! that the sum is what du(1) says. Blocks are counted, not contents: a sparse file occupies what it occupies.
//! Nothing is locked while files are counted; what changes meanwhile may be counted as it was or as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::Engine;
use super::query::{ContainerSummary, ListRequest};
use crate::container::ContainerId;
use crate::image::{Owner, Store, Survey};
use crate::storage::volume::Volumes;
use crate::sys::tree;

/// What the data root occupies, in bytes on disk.
#[derive(Debug, Default)]
pub struct DiskUsage {
    /// Images, newest first, and those that only containers have.
    pub images: Vec<ImageUsage>,
    /// All that belongs to images, shared layers once.
    pub images_total: u64,
    /// What `image prune -a` would free of it.
    pub images_reclaimable: u64,
    /// Containers, newest first.
    pub containers: Vec<ContainerUsage>,
    /// Volumes by name.
    pub volumes: Vec<VolumeUsage>,
    /// What nothing uses, and what nobody here has made.
    pub orphans: Vec<OrphanUsage>,
    /// The log of events, names, networks, directories.
    pub records: u64,
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// `sha256:…`.
    pub id: String,
    /// References in their familiar form.
    pub references: Vec<String>,
    /// Names with a digest.
    pub digests: Vec<String>,
    /// When it was built.
    pub created: Option<Timestamp>,
    /// Layers, unpacked and compressed, config, manifests.
    pub total: u64,
    /// What other images have as well.
    pub shared: u64,
    /// Containers made from it.
    pub containers: usize,
}

/// A container.
#[derive(Debug)]
pub struct ContainerUsage {
    /// What it is.
    pub summary: ContainerSummary,
    /// Writable layer, log, records.
    pub bytes: u64,
    /// Whether it runs.
    pub active: bool,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Containers that have it.
    pub links: usize,
    /// Bytes.
    pub bytes: u64,
}

/// Something that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanUsage {
    /// `layer`, `blob`, `manifest`, `temporary`, `overlay`, `trash`, or `unknown`.
    pub kind: &'static str,
    /// Digest or file name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
}

impl OrphanUsage {
    /// Whether a prune removes it. What nobody here has made is nobody's here to remove.
    pub fn is_reclaimable(&self) -> bool {
        self.kind != UNKNOWN
    }
}

const UNKNOWN: &str = "unknown";

impl DiskUsage {
    /// Everything: what du(1) says of the data root.
    pub fn total(&self) -> u64 {
        self.images_total + self.containers_total() + self.volumes_total() + self.orphans_total() + self.records
    }

    /// All containers.
    pub fn containers_total(&self) -> u64 {
        self.containers.iter().map(|container| container.bytes).sum()
    }

    /// Those that do not run.
    pub fn containers_reclaimable(&self) -> u64 {
        self.containers.iter().filter(|container| !container.active).map(|container| container.bytes).sum()
    }

    /// All volumes.
    pub fn volumes_total(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.bytes).sum()
    }

    /// Those that no container has.
    pub fn volumes_reclaimable(&self) -> u64 {
        self.volumes.iter().filter(|volume| volume.links == 0).map(|volume| volume.bytes).sum()
    }

    /// All orphans.
    pub fn orphans_total(&self) -> u64 {
        self.orphans.iter().map(|orphan| orphan.bytes).sum()
    }

    /// Those that a prune removes.
    pub fn orphans_reclaimable(&self) -> u64 {
        self.orphans.iter().filter(|orphan| orphan.is_reclaimable()).map(|orphan| orphan.bytes).sum()
    }
}

impl Engine {
    /// Adds up the data root. Takes as long as there are files.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        let containers = self.list(&ListRequest { all: true, ..ListRequest::default() })?.containers;
        self.add_images(&mut usage)?;
        self.add_volumes(&mut usage, &containers)?;
        for summary in containers {
            // A damaged one is gone by force only, so it counts as used.
            let active = !matches!(summary.state(), "created" | "exited");
            usage.containers.push(ContainerUsage { bytes: self.container_usage(&summary.id)?, summary, active });
        }
        self.add_rest(&mut usage)?;
        usage.orphans.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        Ok(usage)
    }

    fn add_images(&self, usage: &mut DiskUsage) -> Result<()> {
        let store = Store::open(&self.layout);
        let survey = store.survey(&mut || self.used_layers())?;
        let mut documents: BTreeMap<&str, u64> = BTreeMap::new();
        let mut layers: BTreeMap<&str, u64> = BTreeMap::new();
        for piece in &survey.pieces {
            match &piece.owner {
                Owner::Image(id) => *documents.entry(id).or_default() += piece.bytes,
                Owner::Layer(diff_id) => *layers.entry(diff_id).or_default() += piece.bytes,
                Owner::Store => {}
            }
            usage.images_total += piece.bytes;
        }
        let users = self.image_users()?;
        let mut known = store.list()?;
        // Removed by force under a stopped container: the layers stay until that goes.
        for user in &users {
            if !known.iter().any(|image| image.id == user.image) {
                known.push(crate::image::Summary {
                    id: user.image.clone(),
                    layers: user.layers.clone(),
                    ..crate::image::Summary::default()
                });
            }
        }
        let mut owners: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for image in &known {
            image.layers.iter().for_each(|layer| _ = owners.entry(layer).or_default().insert(&image.id));
        }
        let mut needed: BTreeSet<&str> = BTreeSet::new();
        for image in &known {
            let containers = users.iter().filter(|user| user.image == image.id).count();
            let own: BTreeSet<&str> = image.layers.iter().map(String::as_str).collect();
            let size = |layer: &&str| layers.get(layer).copied().unwrap_or_default();
            let shared = own.iter().filter(|layer| owners[**layer].len() > 1).map(size).sum();
            let documents = documents.get(image.id.as_str()).copied().unwrap_or_default();
            if containers > 0 {
                needed.extend(&own);
            } else {
                usage.images_reclaimable += documents;
            }
            usage.images.push(ImageUsage {
                id: image.id.clone(),
                references: image.references.clone(),
                digests: image.digests.clone(),
                created: image.created,
                total: own.iter().map(size).sum::<u64>() + documents,
                shared,
                containers,
            });
        }
        // Layers that something under way holds belong to no image yet, and are not to be had.
        let reclaimable = |layer: &&str| owners.contains_key(*layer) && !needed.contains(*layer);
        usage.images_reclaimable +=
            layers.iter().filter(|(layer, _)| reclaimable(layer)).map(|(_, bytes)| bytes).sum::<u64>();
        usage.orphans.extend(orphans(survey));
        Ok(())
    }

    fn add_volumes(&self, usage: &mut DiskUsage, containers: &[ContainerSummary]) -> Result<()> {
        let volumes = Volumes::open(&self.layout);
        for path in names(&self.layout.volumes())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !volumes.exists(&name) && volumes.record(&name).ok().flatten().is_none() {
                usage.orphans.push(unknown(path)?);
                continue;
            }
            let has =
                |container: &&ContainerSummary| container.mounts.iter().any(|mount| mount.volume && mount.name == name);
            let links = containers.iter().filter(has).count();
            usage.volumes.push(VolumeUsage { bytes: bytes(&path)?, name, path, links });
        }
        usage.volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// What is neither images nor volumes nor listed containers.
    fn add_rest(&self, usage: &mut DiskUsage) -> Result<()> {
        let layout = &self.layout;
        let listed: BTreeSet<String> =
            usage.containers.iter().map(|container| container.summary.id.to_string()).collect();
        for directory in [layout.root(), &layout.containers(), &layout.overlay(), &layout.volumes(), &layout.trash()] {
            usage.records += own(directory);
        }
        for path in names(&layout.containers())? {
            match container_of(&path) {
                Some(id) if listed.contains(id.as_str()) => {}
                // Being made, or made since they were listed.
                Some(_) => usage.records += bytes(&path)?,
                None => usage.orphans.push(unknown(path)?),
            }
        }
        for path in names(&layout.overlay())?.into_iter().filter(|path| *path != layout.layers()) {
            match container_of(&path) {
                Some(id) if listed.contains(id.as_str()) => {}
                Some(id) if layout.container(&id).exists() => usage.records += bytes(&path)?,
                Some(_) => usage.orphans.push(orphan("overlay", path)?),
                None => usage.orphans.push(unknown(path)?),
            }
        }
        for path in names(&layout.trash())? {
            usage.orphans.push(orphan("trash", path)?);
        }
        let elsewhere = [layout.containers(), layout.overlay(), layout.volumes(), layout.trash(), layout.image()];
        let run = layout.run();
        let own = [layout.names(), layout.network(), layout.events(), layout.events().with_added_extension("1")];
        for path in names(layout.root())?.into_iter().filter(|path| !elsewhere.contains(path)) {
            if own.contains(&path) || path == run {
                usage.records += bytes(&path)?;
            } else {
                usage.orphans.push(unknown(path)?);
            }
        }
        Ok(())
    }

    /// Puts overlays that belong to no container into the trash, and empties it of what the dead have left;
    /// how many bytes that was.
    pub fn prune_leftovers(&self) -> Result<u64> {
        let layout = &self.layout;
        let mut freed = 0;
        for path in names(&layout.overlay())? {
            // A container's directory is made before its overlay, and goes after it.
            if let Some(id) = container_of(&path).filter(|id| !layout.container(id).exists()) {
                self.discard_directories(&id)?;
            }
        }
        let before = names(&layout.trash())?;
        let sizes = before.iter().map(|path| Ok((path, bytes(path)?))).collect::<Result<Vec<_>>>()?;
        self.sweep_trash();
        for (path, bytes) in sizes {
            freed += if path.exists() { 0 } else { bytes };
        }
        Ok(freed)
    }
}

fn orphans(survey: Survey) -> Vec<OrphanUsage> {
    let known = survey.orphans.into_iter().map(|orphan| OrphanUsage {
        kind: orphan.kind.as_str(),
        name: orphan.name,
        path: orphan.path,
        bytes: orphan.bytes,
    });
    let unknown = survey.unknown.into_iter().map(|(path, bytes)| OrphanUsage {
        kind: UNKNOWN,
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path,
        bytes,
    });
    known.chain(unknown).collect()
}

fn orphan(kind: &'static str, path: PathBuf) -> Result<OrphanUsage> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(OrphanUsage { kind, name, bytes: bytes(&path)?, path })
}

fn unknown(path: PathBuf) -> Result<OrphanUsage> {
    orphan(UNKNOWN, path)
}

fn container_of(path: &Path) -> Option<ContainerId> {
    path.file_name().and_then(|name| name.to_str()).and_then(ContainerId::parse)
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(tree::usage(path).with_context(|| format!("add up {}", path.display()))?.disk)
}

/// Bytes of a directory itself.
fn own(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

fn names(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory.display())),
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.with_context(|| format!("read {}", directory.display()))
}
