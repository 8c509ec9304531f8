//! Pulling: from a reference to an image whose layers are unpacked, several at once, while they arrive.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use super::progress::{Progress, Step};
use crate::error::Failure;
use crate::image::Store;
use crate::image::layer::parallel;
use crate::image::layer::unpack::Keep;
use crate::image::oci::config::{ConfigFile, MAX_DOCUMENT};
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, Document, Manifest, choose, not_an_image};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
use crate::image::registry::{Access, Accounts, Fetched, Registry, Target};
use crate::image::store::layers::{Obtained, Wanted};
use crate::image::store::lease::Lease;
use crate::image::store::tags::Arrival;
use crate::settings::Settings;

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// What to pull, and with what.
#[derive(Clone, Copy)]
pub struct Pull<'a> {
    /// The image.
    pub reference: &'a Reference,
    /// `--platform`; this machine's when not given.
    pub platform: Option<&'a Platform>,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// The caller's credentials.
    pub accounts: &'a Accounts,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's id.
    pub id: Digest,
    /// Digest of what the reference led to at the registry: a manifest, or an index of several.
    pub digest: Digest,
    /// Whether anything was new.
    pub news: News,
}

/// Whether a pull changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Layers came, or the name means another image now.
    Newer,
    /// All was there and named so.
    UpToDate,
}

impl Store {
    /// Pulls an image. Layers that are there are not fetched; those that came before a failure stay for the
    /// next attempt (`image prune` frees them).
    ///
    /// # Errors
    /// Whatever the registry refuses; content that is not what its digest says; a full disk.
    pub fn pull(&self, pull: &Pull<'_>) -> Result<Pulled> {
        let registry = Registry::open(pull.settings, pull.accounts, pull.reference, Access::Pull)?;
        match self.pull_from(&registry, pull) {
            // Whatever a mirror gave that does not do, the registry itself may give what does.
            Err(error) if !is_of_the_disk(&error) && registry.leave_mirrors() => {
                let reason = Failure::from_error(&error);
                pull.progress
                    .line(&format!("What the mirror gave is of no use ({reason}): asking the registry itself"));
                self.pull_from(&registry, pull)
            }
            result => result,
        }
    }

    fn pull_from(&self, registry: &Registry, pull: &Pull<'_>) -> Result<Pulled> {
        let fetched = registry.manifest(Target::of(pull.reference))?;
        // Told when it is true: there is something to pull.
        pull.progress.line(&heading(pull.reference));
        let digest = fetched.digest.clone();
        let (manifest, bytes) = resolve(registry, fetched, pull, 0)?;
        let config = fetch_config(registry, &manifest)?;
        let parsed = ConfigFile::parse(&config)?;
        if let (Some(wanted), Some(offered)) = (pull.platform, parsed.platform())
            // Configs often leave away the variant for which an index has them.
            && !wanted.accepts(&Platform { variant: offered.variant.clone().or(wanted.variant.clone()), ..offered.clone() })
        {
            return Err(Failure::not_found(format!(
                "image with reference {} was found but does not match the specified platform: wanted {wanted}, actual: {offered}",
                pull.reference
            ))
            .into());
        }
        let diff_ids = parsed.diff_ids()?;
        if diff_ids.len() != manifest.layers.len() {
            let (expected, found) = (diff_ids.len(), manifest.layers.len());
            bail!("invalid manifest, layers length mismatch: expected {expected}, got {found}");
        }
        let lease = self.lease()?;
        let fetch = Fetch { store: self, lease: &lease, registry, pull, stop: AtomicBool::new(false) };
        let came = fetch.layers(&manifest.layers, &diff_ids)?;
        let by_digest = pull.reference.with_digest(&digest);
        // A name that pins a digest is known by it; only a tag is a name of its own.
        let named = if pull.reference.digest().is_none() { std::slice::from_ref(pull.reference) } else { &[] };
        let known = self.resolve(&pull.reference.canonical())?;
        let digests = std::slice::from_ref(&by_digest);
        let id = self.record(&Arrival { config: &config, manifest: Some(&bytes), references: named, digests })?;
        let news = if came == 0 && known.as_ref() == Some(&id) { News::UpToDate } else { News::Newer };
        Ok(Pulled { id, digest, news })
    }
}

/// Whether there is no room here, which no other source would change.
fn is_of_the_disk(error: &anyhow::Error) -> bool {
    let of_the_disk =
        |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem);
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| of_the_disk(error.kind())))
}

/// `latest: Pulling from library/busybox`, in Docker's words.
fn heading(reference: &Reference) -> String {
    // A digest outranks a tag.
    let what = match (reference.digest(), reference.tag()) {
        (None, Some(tag)) => tag.to_owned(),
        _ => reference.familiar(),
    };
    format!("{what}: Pulling from {}", reference.path())
}

/// Follows an index to the manifest for the wanted platform.
fn resolve(registry: &Registry, fetched: Fetched, pull: &Pull<'_>, depth: usize) -> Result<(Manifest, Vec<u8>)> {
    match Document::parse(&fetched.bytes, &fetched.media_type)? {
        Document::Manifest(manifest) => match manifest.artifact() {
            None => Ok((manifest, fetched.bytes)),
            Some(kind) => Err(not_an_image(&pull.reference.to_string(), kind).into()),
        },
        Document::Index(_) if depth == MAX_DEPTH => bail!("indexes are nested more than {MAX_DEPTH} deep"),
        Document::Index(index) => {
            let host = Platform::host();
            let chosen = choose(&index, pull.platform.unwrap_or(&host))?;
            let mut next = registry.manifest(Target::Digest(&chosen.digest))?;
            if next.media_type.is_empty() {
                next.media_type.clone_from(&chosen.media_type);
            }
            resolve(registry, next, pull, depth + 1)
        }
    }
}

fn fetch_config(registry: &Registry, manifest: &Manifest) -> Result<Vec<u8>> {
    let config = &manifest.config;
    if config.size > MAX_DOCUMENT {
        bail!("the image config has {} bytes; at most {MAX_DOCUMENT} are read", config.size);
    }
    let mut bytes = Vec::new();
    registry.blob(config, |_, _| {})?.read_to_end(&mut bytes).context("fetch image config")?;
    if Digest::of(&bytes) != config.digest {
        bail!("the image config is not what its digest {} says", config.digest);
    }
    Ok(bytes)
}

/// One pull's layers on their way.
struct Fetch<'a> {
    store: &'a Store,
    lease: &'a Lease,
    registry: &'a Registry,
    pull: &'a Pull<'a>,
    /// One layer failed: the others need not go on.
    stop: AtomicBool,
}

impl Fetch<'_> {
    /// Has all layers in the store; gives how many came.
    fn layers(&self, blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<usize> {
        let mut layers: Vec<(&Descriptor, &Digest)> = Vec::new();
        for (blob, diff_id) in blobs.iter().zip(diff_ids) {
            // One layer may stand in an image several times, empty ones do.
            if !layers.iter().any(|(_, other)| *other == diff_id) {
                let there = self.store.has_layer(diff_id) && self.store.has_form(self.wanted(blob, diff_id));
                self.pull.progress.layer(&blob.digest, if there { Step::Exists } else { Step::Pending });
                layers.push((blob, diff_id));
            }
        }
        let came = AtomicUsize::new(0);
        parallel::each(&layers, self.pull.settings.max_concurrent_downloads, &self.stop, |(blob, diff_id)| {
            let obtained = self.layer(blob, diff_id).with_context(|| format!("layer {}", blob.digest))?;
            came.fetch_add(usize::from(obtained == Obtained::Made), Ordering::Relaxed);
            Ok(())
        })?;
        Ok(came.into_inner())
    }

    fn wanted<'a>(&self, blob: &'a Descriptor, diff_id: &'a Digest) -> Wanted<'a> {
        let keep = if self.pull.settings.keep_compressed_layers { Keep::Blob } else { Keep::Nothing };
        Wanted { diff_id: Some(diff_id), blob: Some(blob), keep }
    }

    fn layer(&self, blob: &Descriptor, diff_id: &Digest) -> Result<Obtained> {
        let progress = self.pull.progress;
        let wanted = self.wanted(blob, diff_id);
        let retrying = |seconds, reason: &str| {
            progress.layer(&blob.digest, Step::Retrying { seconds, reason: reason.to_owned() });
        };
        let open = || -> Result<Box<dyn Read + Send>> {
            // Digested while it is unpacked, and held against the manifest before it gets its name.
            let input = self.registry.unverified_blob(blob, retrying)?;
            Ok(Box::new(Watched { input, done: 0, blob, progress, stop: &self.stop }))
        };
        let waiting = || progress.layer(&blob.digest, Step::Waiting);
        let (_, obtained) = self.store.obtain(self.lease, wanted, open, waiting)?;
        progress.layer(&blob.digest, if obtained == Obtained::Made { Step::Done } else { Step::Exists });
        Ok(obtained)
    }
}

/// A layer's bytes, of which the progress hears; they end when another layer has failed.
struct Watched<'a> {
    input: Box<dyn Read + Send + 'a>,
    done: u64,
    blob: &'a Descriptor,
    progress: &'a dyn Progress,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("given up, because another layer failed"));
        }
        let count = self.input.read(buffer)?;
        self.done += count as u64;
        let total = self.blob.size;
        self.progress.layer(
            &self.blob.digest,
            if count == 0 || self.done >= total { Step::Finishing } else { Step::Bytes { done: self.done, total } },
        );
        Ok(count)
    }
}
