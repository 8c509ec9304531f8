//! Images from and to registries.

use anyhow::{Result, bail};

use super::super::request::PullPolicy;
use super::Engine;
use crate::engine::events::Kind;
use crate::error::Failure;
use crate::image::oci::platform::Platform;
use crate::image::oci::reference::Reference;
use crate::image::registry::{Access, Accounts, Registry};
use crate::image::transfer::progress::Progress;
use crate::image::transfer::pull::{News, Pull, Pulled};
use crate::image::transfer::push::{Push, Pushed};
use crate::image::{Image, Store};
use crate::settings::Settings;

pub use crate::sys::tty::LineEnd;

/// What `pull` and `push` do with one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The one image that is named.
    One,
    /// All its tags (`-a`).
    AllTags,
}

/// An image as somebody wants to run it.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// What the user called it.
    pub image: &'a str,
    /// When a registry is asked.
    pub policy: PullPolicy,
    /// `--platform`.
    pub platform: Option<&'a str>,
}

impl Engine {
    /// Pulls an image, or all tags of its repository; gives what each reference became.
    ///
    /// # Errors
    /// See [`Store::pull`]; what was pulled before stays.
    pub fn pull(
        &self,
        name: &str,
        extent: Extent,
        platform: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vec<(Reference, Pulled)>> {
        let reference: Reference = name.parse()?;
        let platform = platform.map(str::parse::<Platform>).transpose()?;
        let settings = Settings::load()?;
        let accounts = Accounts::of_caller()?;
        let mut references = vec![reference.clone()];
        if extent == Extent::AllTags {
            if name.contains('@') || reference.tag().is_some_and(|tag| name.ends_with(&format!(":{tag}"))) {
                return Err(Failure::usage("tag can't be used with --all-tags/-a").into());
            }
            let registry = Registry::open(&settings, &accounts, &reference, Access::Pull)?;
            references = registry.tags()?.iter().map(|tag| reference.with_tag(tag)).collect::<Result<_>>()?;
        }
        let store = Store::open(&self.layout);
        let mut pulled = Vec::new();
        for reference in references {
            let before = store.get(&reference.canonical())?;
            let pull = Pull {
                reference: &reference,
                platform: platform.as_ref(),
                settings: &settings,
                accounts: &accounts,
                progress,
            };
            let done = store.pull(&pull);
            self.settle_later();
            let done = done?;
            progress.line(&format!("Digest: {}", done.digest));
            progress.line(&match done.news {
                News::Newer => format!("Status: Downloaded newer image for {reference}"),
                News::UpToDate => format!("Status: Image is up to date for {reference}"),
            });
            if before.is_none_or(|before| before.id != done.id.to_string()) {
                self.note_object(Kind::Image, &reference.familiar(), "pull", &[("name", reference.familiar_name())]);
            }
            pulled.push((reference, done));
        }
        Ok(pulled)
    }

    /// Pushes an image, or all tags of its repository that are there; only if they are for `platform` where one is given.
    ///
    /// # Errors
    /// See [`Store::push`].
    pub fn push(
        &self,
        name: &str,
        extent: Extent,
        platform: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vec<(Reference, Pushed)>> {
        let reference: Reference = name.parse()?;
        let platform = platform.map(str::parse::<Platform>).transpose()?;
        let settings = Settings::load()?;
        let accounts = Accounts::of_caller()?;
        let store = Store::open(&self.layout);
        if reference.digest().is_some() {
            return Err(Failure::engine("cannot push a digest reference").with_hint("push by a tag").into());
        }
        let references = match extent {
            Extent::One => vec![reference.clone()],
            Extent::AllTags
                if name.contains('@') || name.ends_with(&format!(":{}", reference.tag().unwrap_or("@"))) =>
            {
                return Err(Failure::usage("tag can't be used with --all-tags/-a").into());
            }
            Extent::AllTags => store.tags_of(&reference)?,
        };
        if references.is_empty() {
            let repository = reference.familiar_name();
            bail!(Failure::not_found(format!("An image does not exist locally with the tag: {repository}")));
        }
        progress.line(&format!("The push refers to repository [{}]", reference.repository()));
        let mut pushed = Vec::new();
        for reference in references {
            let platform = platform.as_ref();
            let push = Push { reference: &reference, platform, settings: &settings, accounts: &accounts, progress };
            let done = store.push(&push)?;
            if let (Some(index), None) = (&done.part_of, platform) {
                // What Docker says where it has more of an index than one platform to choose from, unasked.
                progress.line(&format!(
                    "Not all multiplatform-content is present and only the available single-platform image was pushed: \
                     {index} -> {}",
                    done.digest
                ));
            }
            let tag = reference.tag().unwrap_or_default();
            progress.line(&format!("{tag}: digest: {} size: {}", done.digest, done.size));
            self.note_object(Kind::Image, &reference.familiar(), "push", &[("name", reference.familiar_name())]);
            pushed.push((reference, done));
        }
        Ok(pushed)
    }

    /// Finds the image that somebody wants to run: in the store, among the bundled ones, at its registry.
    pub(in crate::engine) fn provide(&self, wish: &Wish<'_>, progress: &dyn Progress) -> Result<Image> {
        let store = Store::open(&self.layout);
        let platform = wish.platform.map(str::parse::<Platform>).transpose()?;
        if wish.policy != PullPolicy::Always
            && let Some(image) = self.local(&store, wish.image)?
            && platform.as_ref().is_none_or(|wanted| image.platform.as_ref().is_none_or(|has| wanted.accepts(has)))
        {
            store.trust(&image.layers)?;
            return Ok(image);
        }
        let missing = || Failure::not_found(format!("No such image: {}", wish.image));
        // An id is nothing a registry knows.
        let Ok(reference) = wish.image.parse::<Reference>() else {
            return Err(missing().with_hint("see what is there: mydocker images").into());
        };
        if wish.policy == PullPolicy::Never {
            let hint = format!("--pull never forbids to fetch it; fetch it first: mydocker pull {}", wish.image);
            return Err(missing().with_hint(hint).into());
        }
        if wish.policy == PullPolicy::Missing {
            progress.line(&format!("Unable to find image '{reference}' locally"));
        }
        let pulled = self.pull(&reference.canonical(), Extent::One, wish.platform, progress)?;
        let id = pulled.first().map(|(_, pulled)| pulled.id.to_string()).unwrap_or_default();
        Ok(store.get(&id)?.ok_or_else(missing)?)
    }

    /// Makes sure that an image was not removed while a container was made of it. Whoever removes images reads
    /// the containers last, so of the two at least one sees the other.
    pub(in crate::engine) fn still_there(&self, image: &Image, name: &str) -> Result<()> {
        match Store::open(&self.layout).has(&image.id) {
            true => Ok(()),
            false => Err(Failure::not_found(format!("No such image: {name}"))
                .with_hint("it was removed at this moment; pull or load it again")
                .into()),
        }
    }

    fn local(&self, store: &Store, name: &str) -> Result<Option<Image>> {
        if let Some(image) = store.get(name)? {
            return Ok(Some(image));
        }
        let bundled = store.get_bundled(name)?;
        if let Some(image) = &bundled {
            let name = name.parse().map_or_else(|_| name.to_owned(), |name: Reference| name.familiar());
            self.note_loaded(&image.id, &[name]);
            self.settle_later();
        }
        Ok(bundled)
    }
}
