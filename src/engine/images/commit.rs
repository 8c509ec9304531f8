//! `commit` and `diff`: what a container has written, as a layer and as a list.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::container::handle::{self, Record};
use crate::container::status::Status;
use crate::container::{Config, ContainerId, MountSource};
use crate::engine::events::Action;
use crate::engine::lifecycle::signal_number;
use crate::engine::{Engine, health};
use crate::error::Failure;
use crate::image::edit::{self, Change, Document, Step};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
use crate::image::{Defaults, Store};
use crate::runtime::spec::DEFAULT_PATH;
use crate::sys::fd;
use crate::sys::process::{self, Fork};

/// What every container has without having changed it: where each start mounts something, and the mark `.dockerenv`.
pub(super) const MOUNT_POINTS: [&str; 7] =
    ["/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"];

/// Makes an image of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// What the image is called; `None` for nothing.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// A comment for its history.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// What a running container does meanwhile.
    pub meanwhile: Meanwhile,
}

/// What a running container does while it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Meanwhile {
    /// It stands still, so that its files fit together.
    #[default]
    Paused,
    /// It goes on.
    Running,
}

impl Engine {
    /// Makes an image of a container's image, of what the container has written, and of how it was run. Gives the
    /// image's id.
    ///
    /// # Errors
    /// A malformed reference or change, before anything is done; a container that is removed meanwhile; what cannot
    /// be said in a layer.
    pub fn commit(&self, request: &CommitRequest) -> Result<String> {
        let reference = request.reference.as_deref().map(name).transpose()?;
        let changes = checked(&request.changes)?;
        let id = handle::find(self.layout(), &request.container)?;
        let config = handle::load(self.layout(), &id)?.config;
        let store = Store::open(self.layout());
        let document = document(&store, &config, &changes)?;
        let path = self.layout().container_overlay(&id).join("upper");
        let upper = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let layer = {
            let _paused = match request.meanwhile {
                Meanwhile::Paused => self.pause_for_now(&id)?,
                Meanwhile::Running => None,
            };
            let taken = store.take_upper(upper.as_fd(), &config.image.layers, &MOUNT_POINTS);
            taken.inspect_err(|_| self.sweep_images())?
        };
        // A directory that was being removed looks emptier and emptier: what came of it is not the container.
        let inode = upper.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
        if std::fs::metadata(&path).map(|metadata| (metadata.dev(), metadata.ino())).ok() != inode {
            drop(layer);
            self.sweep_images();
            return Err(Failure::conflict(format!("container {} was removed while it was read", id.short())).into());
        }
        let step = Step {
            created: Timestamp::now(),
            created_by: config.process.command.join(" "),
            author: request.author.clone(),
            comment: request.message.clone(),
            layer: None,
        };
        let empty = layer.diff_id().is_none();
        let derived = store.derive(document, layer, step, reference.as_ref());
        let image = derived.inspect_err(|_| self.sweep_images())?;
        if empty {
            // The layer of nothing is no part of the image.
            self.sweep_images();
        }
        if let Some(reference) = &reference {
            self.note_tagged(&image, reference);
        }
        let name = reference.as_ref().map(Reference::familiar).unwrap_or_default();
        self.note(&config, Action::Commit { comment: &request.message, image: &image, reference: &name });
        self.settle_later();
        Ok(image)
    }

    /// Pauses a container until the value is dropped. `None` when there is nothing to pause: it does not run, or its
    /// user has paused it.
    fn pause_for_now(&self, id: &ContainerId) -> Result<Option<Pause<'_>>> {
        if handle::load(self.layout(), id)?.status() != Status::Running {
            return Ok(None);
        }
        // Before the pause: whoever ends us in between has nothing to undo.
        let guard = self.guard_pause(id);
        match self.pause(id.as_str()) {
            Ok(()) => Ok(Some(Pause { engine: self, id: id.clone(), guard })),
            Err(error) => {
                release(guard);
                // It has ended, or its user was faster.
                let status = handle::load(self.layout(), id)?.status();
                if status == Status::Running { Err(error) } else { Ok(None) }
            }
        }
    }

    /// A process that lets the container go on should this one be killed: a pause that nobody asked for must end
    /// with the command that made it. It waits for the end of a pipe that only we hold.
    fn guard_pause(&self, id: &ContainerId) -> Option<PipeWriter> {
        let (reader, writer) = std::io::pipe().ok()?;
        match process::fork_orphan() {
            Ok(Fork::Parent) => Some(writer),
            Ok(Fork::Child) => {
                process::reset_signals();
                // Not a member of our terminal's group: ctrl-c is what it is there for.
                let _ = rustix::process::setsid();
                fd::close_all_but(&[reader.as_raw_fd()]);
                std::mem::forget(writer);
                fd::ensure_standard_streams();
                let _ = rustix::process::chdir("/");
                process::set_title("mydocker: commit");
                if was_abandoned(&reader)
                    && handle::load(self.layout(), id).is_ok_and(|record| record.status() == Status::Paused)
                {
                    let _ = self.unpause(id.as_str());
                }
                process::exit_now(0)
            }
            // With threads around there is none; then the record at least says that it is paused.
            Err(error) => {
                tracing::debug!("guard the pause of {id}: {error}");
                None
            }
        }
    }
}

/// Waits for a word, which says that all is well, or the end.
fn was_abandoned(reader: &PipeReader) -> bool {
    let mut word = [0];
    loop {
        match rustix::io::read(reader, &mut word) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(1) => return false,
            _ => return true,
        }
    }
}

fn release(guard: Option<PipeWriter>) {
    if let Some(mut guard) = guard {
        let _ = guard.write_all(b".");
    }
}

/// A pause that ends with this value.
struct Pause<'a> {
    engine: &'a Engine,
    id: ContainerId,
    guard: Option<PipeWriter>,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        match self.engine.unpause(self.id.as_str()) {
            // Its user may have unpaused it, or killed it.
            Ok(()) => {}
            Err(error) => tracing::debug!("let {} go on: {error:#}", self.id),
        }
        release(self.guard.take());
    }
}

/// A name that an image can get.
pub(super) fn name(text: &str) -> Result<Reference> {
    let reference: Reference = text.parse()?;
    reference.check_name()?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(Failure::engine("refusing to create a tag with a digest reference")
            .with_hint("an image gets its digest from its contents: give a name and a tag")
            .into()),
    }
}

/// Changes, checked as far as that can be done before they are carried out.
pub(super) fn checked(changes: &[String]) -> Result<Vec<Change>> {
    let changes = edit::parse(changes)?;
    for change in &changes {
        match change {
            Change::StopSignal(signal) if !signal.contains('$') => drop(signal_number(signal)?),
            _ => {}
        }
    }
    Ok(changes)
}

/// The config of the image that a container becomes, without its layer.
fn document(store: &Store, config: &Config, changes: &[Change]) -> Result<Document> {
    let base = store.get(&config.image.id)?.map(|image| image.defaults);
    let mut document = match store.document(&config.image.id)? {
        Some(document) => document,
        // The image was removed by force; its layers are still the container's.
        None => {
            let mut document = Document::empty(&Platform::host());
            document.set_layers(&config.image.layers);
            document
        }
    };
    document.run_with(&run_with(config, &base.unwrap_or_default()))?;
    document.apply(changes)?;
    Ok(document)
}

/// What a container was run with and its image passes on. What the engine put in for this container alone stays
/// out: its host name, its terminal, a search path and a directory where nobody had set one.
fn run_with(config: &Config, base: &Defaults) -> Defaults {
    let process = &config.process;
    let own = [format!("HOSTNAME={}", config.hostname), "TERM=xterm".to_owned(), DEFAULT_PATH.to_owned()];
    let env = process.env.iter().filter(|entry| base.env.contains(entry) || !own.contains(entry)).cloned();
    let anonymous = config.mounts.iter().filter_map(|mount| match mount.source {
        MountSource::Volume { anonymous: true, .. } => Some(mount.target.clone()),
        _ => None,
    });
    let volumes: BTreeSet<String> = base.volumes.iter().cloned().chain(anonymous).collect();
    let networking = &config.networking;
    let exposed = networking.exposed.iter().map(|port| (port.port, port.protocol));
    let published = networking.ports.iter().map(|mapping| (mapping.port, mapping.protocol));
    let ports: BTreeSet<String> =
        exposed.chain(published).map(|(port, protocol)| format!("{port}/{protocol}")).collect();
    let unset =
        |value: &str, default: &str, base: bool| if value == default && base { None } else { Some(value.to_owned()) };
    Defaults {
        env: env.collect(),
        entrypoint: process.entrypoint.clone(),
        command: process.command.clone(),
        user: process.user.clone(),
        workdir: unset(&process.workdir, "/", base.workdir.is_empty()).unwrap_or_default(),
        volumes: volumes.into_iter().collect(),
        stop_signal: unset(&config.stop_signal, "SIGTERM", base.stop_signal.is_none()),
        labels: config.labels.clone(),
        exposed_ports: ports.into_iter().collect(),
        healthcheck: config.health.as_ref().map(health::for_image),
        ..base.clone()
    }
}

/// Directories of a container's layers, the writable one first.
pub(super) fn layers(engine: &Engine, record: &Record) -> Vec<std::path::PathBuf> {
    let store = Store::open(engine.layout());
    let upper = engine.layout().container_overlay(&record.config.id).join("upper");
    std::iter::once(upper).chain(record.config.image.layers.iter().rev().map(|layer| store.layer(layer))).collect()
}
