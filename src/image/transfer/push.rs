//! Pushing: an image goes out under the manifest and with the compressed layers it came with, byte for byte;
//! what it never had is made once and remembered.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::progress::{Progress, Step};
use crate::error::Failure;
use crate::image::Store;
use crate::image::layer::parallel;
use crate::image::layer::recipe;
use crate::image::oci::config::{ConfigFile, layers_of};
use crate::image::oci::digest::Digest;
use crate::image::oci::manifest::{Descriptor, Manifest, media};
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
use crate::image::registry::{Access, Accounts, Registry, Target};
use crate::image::store::layers::Temporary;
use crate::image::store::lease::Lease;
use crate::image::store::tags::Arrival;
use crate::settings::Settings;
use crate::store::create_private;

/// Repositories of the same registry that are asked for a layer before it is uploaded.
const MAX_MOUNTS: usize = 3;

/// What to push, and with what.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// The image, by a name with a tag.
    pub reference: &'a Reference,
    /// What the image must be for.
    pub platform: Option<&'a Platform>,
    /// The administrator's settings.
    pub settings: &'a Settings,
    /// The caller's credentials.
    pub accounts: &'a Accounts,
    /// Hears how it goes.
    pub progress: &'a dyn Progress,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: usize,
    /// The index that the image came from, of which it is one platform's part and the only one that went.
    pub part_of: Option<Digest>,
}

impl Store {
    /// Pushes an image to the registry that its name says.
    ///
    /// # Errors
    /// No such image; whatever the registry refuses.
    pub fn push(&self, push: &Push<'_>) -> Result<Pushed> {
        if push.reference.digest().is_some() {
            return Err(Failure::engine("cannot push a digest reference").with_hint("push by a tag").into());
        }
        let id = self.repositories()?.references.get(&push.reference.canonical()).cloned();
        let Some(id) = id else {
            let name = push.reference.familiar_name();
            return Err(Failure::not_found(format!("An image does not exist locally with the tag: {name}"))
                .with_hint(format!("name it so first: mydocker tag IMAGE {}", push.reference))
                .into());
        };
        let id = Digest::parse(&id)?;
        let config = self.configs().read(&id)?.context("the image was removed meanwhile")?;
        ConfigFile::parse(&config)?.expect_platform(push.platform, &push.reference.familiar())?;
        let diff_ids = layers_of(&config);
        let registry = Registry::open(push.settings, push.accounts, push.reference, Access::Push)?;
        let lease = self.lease()?;
        diff_ids.iter().try_for_each(|diff_id| lease.hold(self, diff_id))?;
        let send = Send { store: self, lease: &lease, registry: &registry, push };
        let (manifest, bytes) = match send.original(&id, &diff_ids)? {
            Some((digest, manifest)) => {
                let bytes = self.manifests().read(&digest)?.context("the image was removed meanwhile")?;
                (manifest, bytes)
            }
            None => {
                let layers = send.forms(&diff_ids)?;
                let config = Descriptor::new(media::OCI_CONFIG, id.clone(), config.len() as u64);
                let manifest = Manifest { media_type: media::OCI_MANIFEST.into(), config, layers };
                let bytes = manifest.to_bytes()?;
                (manifest, bytes)
            }
        };
        send.layers(&manifest.layers, &diff_ids)?;
        send.config(&manifest.config, &config)?;
        let digest = registry.put_manifest(Target::of(push.reference), &manifest.media_type, &bytes)?;
        let part_of = self.index_of(&id)?;
        let by_digest = push.reference.with_digest(&digest);
        let digests = std::slice::from_ref(&by_digest);
        self.record(&Arrival { config: &config, manifest: Some(&bytes), references: &[], digests })?;
        Ok(Pushed { digest, size: bytes.len(), part_of })
    }

    /// A digest under which the image was pulled and which is not its manifest's, so an index's: of those nothing is
    /// kept but the digest.
    fn index_of(&self, id: &Digest) -> Result<Option<Digest>> {
        let (repositories, id) = (self.repositories()?, id.to_string());
        let names = repositories.digests.iter().filter(|(_, of)| **of == id).map(|(name, _)| name);
        let digests = names.filter_map(|name| name.parse::<Reference>().ok()?.digest().cloned());
        let mut digests = digests;
        Ok(digests.find(|digest| !self.manifests().contains(digest)))
    }

    /// Tags of a repository that the store has.
    pub fn tags_of(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let prefix = format!("{}:", reference.repository());
        let repositories = self.repositories()?;
        Ok(repositories
            .references
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .filter_map(|n| n.parse().ok())
            .collect())
    }
}

/// One push on its way.
struct Send<'a> {
    store: &'a Store,
    lease: &'a Lease,
    registry: &'a Registry,
    push: &'a Push<'a>,
}

impl Send<'_> {
    /// A manifest of the image of which every layer can be had: from the store, or at the registry already.
    fn original(&self, id: &Digest, diff_ids: &[Digest]) -> Result<Option<(Digest, Manifest)>> {
        'manifests: for (digest, manifest) in self.store.manifests_of(id)? {
            for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
                if !self.can_be_had(&layer.digest, diff_id)? {
                    continue 'manifests;
                }
            }
            return Ok(Some((digest, manifest)));
        }
        Ok(None)
    }

    /// Whether a compressed layer is in the store or at the registry, perhaps in another of its repositories, from
    /// which it is taken over then: a store that keeps none (`keep-compressed-layers`) has no other source.
    fn can_be_had(&self, digest: &Digest, diff_id: &Digest) -> Result<bool> {
        // One that came uncompressed is told again from its files.
        if digest == diff_id || self.store.blobs().contains(digest) || self.registry.has_blob(digest)? {
            return Ok(true);
        }
        for from in self.neighbours(diff_id)? {
            if self.registry.mount(digest, &from)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A form of each layer that can be sent, made where there is none.
    fn forms(&self, diff_ids: &[Digest]) -> Result<Vec<Descriptor>> {
        diff_ids.iter().map(|diff_id| self.form(diff_id).with_context(|| format!("layer {diff_id}"))).collect()
    }

    fn form(&self, diff_id: &Digest) -> Result<Descriptor> {
        for form in self.store.layer_record(diff_id)?.blobs.into_iter().rev() {
            if self.can_be_had(&form.digest, diff_id)? {
                return Ok(form);
            }
        }
        self.compress(diff_id)
    }

    /// Compresses a layer and keeps that, so that it goes out the same wherever it goes.
    fn compress(&self, diff_id: &Digest) -> Result<Descriptor> {
        self.push.progress.layer(diff_id, Step::Finishing);
        let temporary = Temporary::create(&self.store.layers_directory())?;
        let path = temporary.directory.join("blob");
        let file = create_private(&path).with_context(|| format!("create {}", path.display()))?;
        let mut encoder = GzEncoder::new(Hashed { file, hasher: Sha256::new(), length: 0 }, Compression::default());
        let mut tar = recipe::tar(&self.store.layer_directory(diff_id))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = tar.read(&mut buffer).context("read layer")?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            encoder.write_all(&buffer[..count]).context("compress layer")?;
        }
        if Digest::finish(hasher) != *diff_id {
            return Err(Failure::engine(format!("layer {diff_id} is damaged on disk"))
                .with_hint("pull, load or commit the image again")
                .into());
        }
        let written = encoder.finish().context("compress layer")?;
        let form = Descriptor::new(media::OCI_LAYER_GZIP, Digest::finish(written.hasher), written.length);
        self.lease.hold(self.store, &form.digest)?;
        self.store.blobs().adopt(&path, &form.digest)?;
        self.store.add_form(diff_id, &form)?;
        Ok(form)
    }

    /// Has all layers at the registry.
    fn layers(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> Result<()> {
        let mut sent: Vec<(&Descriptor, &Digest)> = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            if !sent.iter().any(|(other, _)| other.digest == layer.digest) {
                self.push.progress.layer(diff_id, Step::Pending);
                sent.push((layer, diff_id));
            }
        }
        let workers = self.push.settings.max_concurrent_uploads;
        parallel::each(&sent, workers, &AtomicBool::new(false), |(layer, diff_id)| {
            self.layer(layer, diff_id).with_context(|| format!("layer {}", layer.digest))
        })
    }

    fn layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<()> {
        let progress = self.push.progress;
        if self.registry.has_blob(&layer.digest)? {
            progress.layer(diff_id, Step::Exists);
            return Ok(());
        }
        for from in self.neighbours(diff_id)? {
            if self.registry.mount(&layer.digest, &from)? {
                progress.layer(diff_id, Step::Mounted { from: from.path().to_owned() });
                return Ok(());
            }
        }
        let path = self.store.blobs().path(&layer.digest);
        let open = |offset: u64| -> Result<Box<dyn Read + std::marker::Send>> {
            if layer.digest == *diff_id && !path.exists() {
                let mut tar = recipe::tar(&self.store.layer_directory(diff_id))?;
                io::copy(&mut (&mut tar).take(offset), &mut io::sink()).context("read layer")?;
                return Ok(Box::new(tar));
            }
            let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            file.seek(SeekFrom::Start(offset)).context("seek")?;
            Ok(Box::new(file))
        };
        let sent = |done| progress.layer(diff_id, Step::Bytes { done, total: layer.size });
        let retrying = |seconds, reason: &str| {
            progress.layer(diff_id, Step::Retrying { seconds, reason: reason.to_owned() });
        };
        self.registry.upload(layer, &open, &sent, &retrying)?;
        progress.layer(diff_id, Step::Done);
        Ok(())
    }

    /// Other repositories of this registry with an image that has the layer.
    fn neighbours(&self, diff_id: &Digest) -> Result<Vec<Reference>> {
        let repositories = self.store.repositories()?;
        let mut found: Vec<Reference> = Vec::new();
        let mut seen = BTreeSet::from([self.push.reference.repository()]);
        for (name, id) in repositories.digests.iter().chain(&repositories.references) {
            let Ok(reference) = name.parse::<Reference>() else { continue };
            if reference.domain() != self.push.reference.domain() || !seen.insert(reference.repository()) {
                continue;
            }
            let config = Digest::parse(id).and_then(|id| self.store.configs().read(&id)).ok().flatten();
            if config.is_some_and(|config| layers_of(&config).contains(diff_id)) {
                found.push(reference);
            }
            if found.len() == MAX_MOUNTS {
                break;
            }
        }
        Ok(found)
    }

    fn config(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        if descriptor.size != bytes.len() as u64 {
            bail!("the image's manifest contradicts its config about the size");
        }
        if self.registry.has_blob(&descriptor.digest)? {
            return Ok(());
        }
        let open = |offset: u64| -> Result<Box<dyn Read + std::marker::Send>> {
            let rest = bytes.get(usize::try_from(offset)?..).unwrap_or_default().to_vec();
            Ok(Box::new(std::io::Cursor::new(rest)))
        };
        self.registry.upload(descriptor, &open, &|_| {}, &|_, _| {}).context("image config")
    }
}

/// A file of which every byte is digested.
struct Hashed {
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
