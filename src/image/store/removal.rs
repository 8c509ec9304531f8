//! Taking names and images away, by Docker's rules (moby `daemon/images/image_delete.go` is their reference).
//!
//! The order makes every interruption harmless: names first, then the config, which *is* the image, then
//! what only it needed. Whoever is killed in between leaves an image without a name or orphans, and both are
//! what `image prune` looks for. Containers are asked twice: before, whether the image may go, and once more
//! when its config is gone. A container is recorded first and looks for its image's config after that, so of a
//! removal and a creation at the same time one sees the other.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Store;
use super::layers::Temporary;
use super::sweep::disk_usage;
use super::tags::Repositories;
use crate::error::Failure;
use crate::image::oci::config::layers_of;
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;

/// A container, as far as images are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub container: String,
    /// The id of its image, `sha256:…`.
    pub image: String,
    /// Diff ids of its layers.
    pub layers: Vec<String>,
    /// Whether it runs.
    pub runs: bool,
}

/// Whether an image goes although something speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It does not.
    No,
    /// Unless it runs.
    Yes,
}

/// What saves an image from being pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags {
    /// A tag does.
    Count,
    /// Nothing but a container.
    CountForNothing,
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// The image's id.
    pub id: String,
    /// Names that do not mean it any more, in familiar form.
    pub untagged: Vec<String>,
    /// The image itself, when it went.
    pub deleted: Option<Freed>,
}

/// What went with an image.
#[derive(Debug, Default)]
pub struct Freed {
    /// Diff ids of the layers, the uppermost first.
    pub layers: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Reads what containers there are; called more than once.
pub type Users<'a> = &'a mut dyn FnMut() -> Result<Vec<User>>;

/// How somebody names an image.
#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// By this canonical reference.
    Name(String),
    /// By its id.
    Id,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Canonical references, in the order in which they are told.
    untag: Vec<String>,
    /// Whether the image goes as well.
    delete: bool,
}

impl Store {
    /// Takes the name `text` away, and the image with its last name; by an id the image with all its names.
    ///
    /// # Errors
    /// No such image; a container or another name is in the way. Nothing is changed then.
    pub fn remove(&self, text: &str, force: Force, users: Users<'_>) -> Result<Removed> {
        let lock = self.lock()?;
        let Some(id) = self.resolve(text)? else { return Err(no_such_image(text)) };
        let repositories = self.repositories()?;
        let names = Names::of(&repositories, &id);
        let plan = plan(&names, &self.meant(text, &names, &id), force, text, &id, &users()?)?;
        let (removed, taken) = self.carry_out(&id, plan, users)?;
        drop(lock);
        finish(removed, taken)
    }

    /// Removes the image `id` if no container has it; `tags` says whether one that has a tag is spared. `None`
    /// when it is.
    pub fn remove_unused(&self, id: &str, tags: Tags, users: Users<'_>) -> Result<Option<Removed>> {
        let id = Digest::parse(id)?;
        let lock = self.lock()?;
        let names = Names::of(&self.repositories()?, &id);
        let tagged = tags == Tags::Count && !names.tags.is_empty();
        let text = id.to_string();
        if tagged || !self.configs().path(&id).exists() || users()?.iter().any(|user| user.image == text) {
            return Ok(None);
        }
        let plan = Plan { untag: names.all(), delete: true };
        let (removed, taken) = self.carry_out(&id, plan, users)?;
        drop(lock);
        finish(removed, taken).map(Some)
    }

    fn meant(&self, text: &str, names: &Names, id: &Digest) -> Meant {
        let named = text.parse::<Reference>().ok().map(|reference| reference.canonical());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        match named.filter(|name| names.tags.contains(name) || names.digests.contains(name)) {
            // Docker takes a name that is also the beginning of its image's id for the id.
            Some(name) if !id.hex().starts_with(digits) => Meant::Name(name),
            _ => Meant::Id,
        }
    }

    /// Does what was planned. The caller holds the store's lock, and ends what is left to do without it.
    fn carry_out(&self, id: &Digest, plan: Plan, users: Users<'_>) -> Result<(Removed, Vec<Temporary>)> {
        let familiar = |name: &String| name.parse::<Reference>().map_or_else(|_| name.clone(), |it| it.familiar());
        let mut removed =
            Removed { id: id.to_string(), untagged: plan.untag.iter().map(familiar).collect(), deleted: None };
        self.change(|repositories| {
            for name in &plan.untag {
                repositories.references.remove(name);
                repositories.digests.remove(name);
            }
        })?;
        if !plan.delete {
            return Ok((removed, Vec::new()));
        }
        // A damaged one, too: what can be made out of its layers goes, and the rest is left to a sweep.
        let path = self.configs().path(id);
        let layers = layers_of(&std::fs::read(&path).unwrap_or_default());
        let mut freed = Freed { layers: Vec::new(), bytes: disk_usage(&path)? };
        let manifests = self.manifests_of(id)?;
        self.configs().remove(id)?;
        let live = self.live(&mut || Ok(users()?.into_iter().flat_map(|user| user.layers).collect()))?;
        for (digest, _) in manifests.iter().filter(|(digest, _)| !live.contains(digest)) {
            freed.bytes += disk_usage(&self.manifests().path(digest))?;
            self.manifests().remove(digest)?;
        }
        let mut taken = Vec::new();
        let mut seen = BTreeSet::new();
        for layer in layers.iter().rev().filter(|layer| !live.contains(layer) && seen.insert((*layer).clone())) {
            for form in self.layer_record(layer).map(|record| record.blobs).unwrap_or_default() {
                if !live.contains(&form.digest) {
                    freed.bytes += disk_usage(&self.blobs().path(&form.digest))?;
                    self.blobs().remove(&form.digest)?;
                }
            }
            if let Some(directory) = Temporary::take(&self.layout.layers(), &self.layer_directory(layer))? {
                self.forget_mark(layer);
                freed.layers.push(layer.to_string());
                taken.push(directory);
            }
        }
        removed.deleted = Some(freed);
        Ok((removed, taken))
    }
}

/// Deletes what was taken out of sight, which may take a while.
fn finish(mut removed: Removed, taken: Vec<Temporary>) -> Result<Removed> {
    for directory in taken {
        if let Some(freed) = &mut removed.deleted {
            freed.bytes += disk_usage(&directory.directory)?;
        }
        directory.remove()?;
    }
    Ok(removed)
}

fn no_such_image(text: &str) -> anyhow::Error {
    let name = text.parse::<Reference>().map_or_else(|_| text.to_owned(), |reference| reference.familiar());
    Failure::not_found(format!("No such image: {name}")).into()
}

/// Canonical references of one image.
#[derive(Debug, Default)]
struct Names {
    tags: Vec<String>,
    digests: Vec<String>,
}

impl Names {
    fn of(repositories: &Repositories, id: &Digest) -> Names {
        let id = id.to_string();
        let of = |names: &std::collections::BTreeMap<String, String>| {
            names.iter().filter(|(_, of)| **of == id).map(|(name, _)| name.clone()).collect()
        };
        Names { tags: of(&repositories.references), digests: of(&repositories.digests) }
    }

    fn all(&self) -> Vec<String> {
        self.tags.iter().chain(&self.digests).cloned().collect()
    }

    /// Whether all names are of one repository, and at most one of them is a tag.
    fn is_single(&self) -> bool {
        let mut repositories: BTreeSet<&str> = self.digests.iter().map(|name| repository(name)).collect();
        repositories.extend(self.tags.iter().map(|name| repository(name)));
        repositories.len() == 1 && self.tags.len() <= 1
    }
}

/// A canonical reference without its tag or digest.
fn repository(name: &str) -> &str {
    match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository),
    }
}

/// What `rmi TEXT` comes to.
fn plan(names: &Names, meant: &Meant, force: Force, text: &str, id: &Digest, users: &[User]) -> Result<Plan> {
    let image = id.to_string();
    let mut mine = users.iter().filter(|user| user.image == image);
    let conflict = |message: String, hint: &str| Err(Failure::conflict(message).with_hint(hint).into());
    match meant {
        Meant::Name(name) => {
            if force == Force::No
                && names.is_single()
                && let Some(user) = mine.next()
            {
                let message = format!(
                    "conflict: unable to remove repository reference {text:?} (must force) - container {} is using \
                     its referenced image {}",
                    short(&user.container),
                    short(id.hex())
                );
                return conflict(
                    message,
                    &format!("remove the container first: mydocker rm {}", short(&user.container)),
                );
            }
            let mut untag = vec![name.clone()];
            // With the last tag of a repository its digests go as well: nobody would know what they are.
            let last_tag = !names.tags.iter().any(|tag| tag != name && repository(tag) == repository(name));
            if names.tags.contains(name) && last_tag {
                untag.extend(names.digests.iter().filter(|digest| repository(digest) == repository(name)).cloned());
            }
            let rest = names.tags.len() + names.digests.len() - untag.len();
            // By force, the name goes from what runs; the image stays, without one.
            let delete = rest == 0 && !mine.any(|user| user.runs);
            Ok(Plan { untag, delete })
        }
        Meant::Id => {
            let digits = short(id.hex());
            if let Some(user) = mine.clone().find(|user| user.runs) {
                let message = format!(
                    "conflict: unable to delete {digits} (cannot be forced) - image is being used by running \
                     container {}",
                    short(&user.container)
                );
                let hint = format!("stop and remove the container first: mydocker rm -f {}", short(&user.container));
                return conflict(message, &hint);
            }
            if force == Force::No && !names.all().is_empty() && !names.is_single() {
                let message = format!(
                    "conflict: unable to delete {digits} (must be forced) - image is referenced in multiple \
                     repositories"
                );
                let hint = format!("remove it by its names, or with all of them: mydocker rmi -f {digits}");
                return conflict(message, &hint);
            }
            if force == Force::No
                && let Some(user) = mine.next()
            {
                let message = format!(
                    "conflict: unable to delete {digits} (must be forced) - image is being used by stopped \
                     container {}",
                    short(&user.container)
                );
                return conflict(
                    message,
                    &format!("remove the container first: mydocker rm {}", short(&user.container)),
                );
            }
            Ok(Plan { untag: names.all(), delete: true })
        }
    }
}

fn short(digits: &str) -> &str {
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaa0000000000000000000000000000000000000000000000000000";

    fn names(tags: &[&str], digests: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { tags: owned(tags), digests: owned(digests) }
    }

    fn user(runs: bool) -> User {
        let image = format!("sha256:{ID}");
        User { container: "c0ffee".repeat(10), image, layers: Vec::new(), runs }
    }

    fn planned(names: &Names, text: &str, force: Force, users: &[User]) -> std::result::Result<Plan, String> {
        let meant = if text == "id" { Meant::Id } else { Meant::Name(text.to_owned()) };
        plan(names, &meant, force, text, &Digest::from_hex(ID).unwrap(), users).map_err(|error| error.to_string())
    }

    fn untag(names: &[&str], delete: bool) -> std::result::Result<Plan, String> {
        Ok(Plan { untag: names.iter().map(|name| (*name).to_owned()).collect(), delete })
    }

    #[test]
    fn the_last_name_takes_the_image_along() {
        let one = names(&["r/a:1"], &[]);
        assert_eq!(planned(&one, "r/a:1", Force::No, &[]), untag(&["r/a:1"], true));
        let two = names(&["r/a:1", "r/b:1"], &[]);
        assert_eq!(planned(&two, "r/b:1", Force::No, &[]), untag(&["r/b:1"], false));
        let digest = names(&["r/a:1", "r/a:2"], &["r/a@x"]);
        assert_eq!(planned(&digest, "r/a:1", Force::No, &[]), untag(&["r/a:1"], false));
        let digest = names(&["r/a:1"], &["r/a@x", "r/b@x"]);
        assert_eq!(planned(&digest, "r/a:1", Force::No, &[]), untag(&["r/a:1", "r/a@x"], false));
        let digest = names(&["r/a:1"], &["r/a@x"]);
        assert_eq!(planned(&digest, "r/a:1", Force::No, &[]), untag(&["r/a:1", "r/a@x"], true));
        assert_eq!(planned(&digest, "r/a@x", Force::No, &[]), untag(&["r/a@x"], false));
        assert_eq!(planned(&names(&[], &["r/a@x"]), "r/a@x", Force::No, &[]), untag(&["r/a@x"], true));
    }

    #[test]
    fn an_id_takes_the_names_of_one_repository() {
        assert_eq!(planned(&names(&[], &[]), "id", Force::No, &[]), untag(&[], true));
        assert_eq!(planned(&names(&["r/a:1"], &["r/a@x"]), "id", Force::No, &[]), untag(&["r/a:1", "r/a@x"], true));
        for several in [names(&["r/a:1", "r/a:2"], &[]), names(&["r/a:1"], &["r/b@x"]), names(&["a:1", "b:1"], &[])] {
            let refused = planned(&several, "id", Force::No, &[]).unwrap_err();
            let text = "conflict: unable to delete aaaaaaaaaaaa (must be forced) - image is referenced in multiple \
                        repositories";
            assert_eq!(refused, text);
            assert!(planned(&several, "id", Force::Yes, &[]).unwrap().delete);
        }
    }

    #[test]
    fn containers_are_in_the_way() {
        let one = names(&["r/a:1"], &[]);
        let text = "conflict: unable to remove repository reference \"r/a:1\" (must force) - container c0ffeec0ffee \
                    is using its referenced image aaaaaaaaaaaa";
        for runs in [true, false] {
            assert_eq!(planned(&one, "r/a:1", Force::No, &[user(runs)]).unwrap_err(), text);
            // A stopped one lets it go by force; under a running one only the name goes.
            assert_eq!(planned(&one, "r/a:1", Force::Yes, &[user(runs)]), untag(&["r/a:1"], !runs));
        }
        let two = names(&["r/a:1", "r/b:1"], &[]);
        assert_eq!(planned(&two, "r/a:1", Force::No, &[user(true)]), untag(&["r/a:1"], false));
        let runs = "conflict: unable to delete aaaaaaaaaaaa (cannot be forced) - image is being used by running \
                    container c0ffeec0ffee";
        for force in [Force::No, Force::Yes] {
            assert_eq!(planned(&one, "id", force, &[user(false), user(true)]).unwrap_err(), runs);
        }
        let stopped = "conflict: unable to delete aaaaaaaaaaaa (must be forced) - image is being used by stopped \
                       container c0ffeec0ffee";
        assert_eq!(planned(&one, "id", Force::No, &[user(false)]).unwrap_err(), stopped);
        assert_eq!(planned(&one, "id", Force::Yes, &[user(false)]), untag(&["r/a:1"], true));
        let mut other = user(true);
        other.image = format!("sha256:{}", "b".repeat(64));
        assert_eq!(planned(&one, "r/a:1", Force::No, &[other]), untag(&["r/a:1"], true));
    }
}
