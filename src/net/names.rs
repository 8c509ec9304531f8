//! Which names lead where on a network, in a form that a resolver in another process reads from the
//! file system as it is at that moment: a name is a directory, and each who bears it a link in it.
//!
//! ```text
//! <names>/<network id>/<name in lower case>/<owner>    link whose text is the owner's addresses: 10.0.0.2,fd00::2
//! <names>/<network id>/@/<address>                     link whose text is the way back: web/<owner>
//! ```
//!
//! A question costs one listing and one readlink(2) for each who bears the name, whatever the number
//! of containers and names. Readers take no lock and meet the old or the new: a link is made whole
//! or replaced by rename(2), and one that goes while it is being read is a name less.
//!
//! Names come from users and from packets. [`Zone`] and [`Names`] refuse every one that is not made
//! of letters, digits, `-`, `_` and `.`, so none can lead out of its directory or to `@`.
//!
//! A registration that kill -9 cut short leaves some of its links; [`Names::unregister`] and
//! [`Names::register`] are harmless when repeated, and [`Names::unregister_owner`] needs to know
//! nothing but the owner. Names go before their addresses are released, so that no name ever leads
//! to another's address.

use std::fs;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::ipam::{check_owner, make_directory, remove};
use crate::error::Failure;
use crate::store::Lock;

/// Directory of the ways back: no name is written like that.
const REVERSE: &str = "@";
/// A link on its way to its place: no name begins with a dot.
const TEMPORARY: &str = ".new";
/// More bearers of one name than an answer could ever carry.
const MOST_BEARERS: usize = 4096;

/// The names of one network, under the lock of all networks ([`super::records::Locked::names`]).
#[derive(Debug)]
pub struct Names<'a> {
    directory: PathBuf,
    lock: PhantomData<&'a Lock>,
}

impl<'a> Names<'a> {
    pub(super) fn new(directory: PathBuf, _held: &'a Lock) -> Names<'a> {
        Names { directory, lock: PhantomData }
    }

    /// Lets `names` lead to `addresses`, and `addresses` back to the first of the names. Several
    /// owners may bear a name. What `owner` has registered before under one of them is replaced.
    ///
    /// Errors: a usage error for a name that cannot be one, before anything is written.
    pub fn register(&self, owner: &str, names: &[String], addresses: &[IpAddr]) -> Result<()> {
        check_owner(owner)?;
        let keys = names.iter().map(|name| checked(name)).collect::<Result<Vec<_>>>()?;
        let text = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        if text.is_empty() {
            return Ok(());
        }
        for key in keys {
            self.put(&key, owner, &text).with_context(|| format!("register name {key}"))?;
        }
        if let Some(primary) = names.first() {
            for address in addresses {
                self.put(REVERSE, &address.to_string(), &format!("{primary}/{owner}"))
                    .with_context(|| format!("register address {address}"))?;
            }
        }
        Ok(())
    }

    /// Takes back what [`Names::register`] did with these arguments; other owners keep theirs.
    /// Harmless when repeated.
    pub fn unregister(&self, owner: &str, names: &[String], addresses: &[IpAddr]) -> Result<()> {
        check_owner(owner)?;
        for address in addresses {
            self.remove_reverse(&self.directory.join(REVERSE).join(address.to_string()), owner)?;
        }
        for key in names.iter().filter_map(|name| key(name)) {
            self.remove_bearer(&self.directory.join(&key), owner)?;
        }
        Ok(())
    }

    /// Takes back everything of `owner`, whatever it is. Looks at every name.
    pub fn unregister_owner(&self, owner: &str) -> Result<()> {
        check_owner(owner)?;
        // Whoever was killed while replacing a name has left it; nobody else is at it now.
        remove(&self.directory.join(TEMPORARY)).with_context(|| format!("remove {TEMPORARY}"))?;
        for path in entries(&self.directory.join(REVERSE))? {
            self.remove_reverse(&path, owner)?;
        }
        for path in entries(&self.directory)? {
            if path.file_name().is_some_and(|name| name != REVERSE) {
                self.remove_bearer(&path, owner)?;
            }
        }
        Ok(())
    }

    /// The link `directory/name` with `text`, new or in the place of another.
    fn put(&self, directory: &str, name: &str, text: &str) -> Result<()> {
        let directory = self.directory.join(directory);
        let link = directory.join(name);
        match symlink(text, &link) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_directory(&directory)?;
                symlink(text, &link)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::read_link(&link).is_ok_and(|old| old == Path::new(text)) {
                    return Ok(());
                }
                // Beside the names, where no reader looks; one that was left by a killed process goes.
                let temporary = self.directory.join(TEMPORARY);
                remove(&temporary)?;
                symlink(text, &temporary)?;
                fs::rename(&temporary, &link)?;
            }
            result => result?,
        }
        Ok(())
    }

    fn remove_bearer(&self, name: &Path, owner: &str) -> Result<()> {
        match fs::remove_file(name.join(owner)) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(error).with_context(|| format!("unregister {}", name.display()));
            }
            _ => {}
        }
        // Stays while others bear the name. Tried even if the link was gone already: the process
        // that removed it may have been killed before it came to this.
        match fs::remove_dir(name) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory
                ) =>
            {
                Err(error).with_context(|| format!("unregister {}", name.display()))
            }
            _ => Ok(()),
        }
    }

    /// The way back from an address that may be another's by now.
    fn remove_reverse(&self, link: &Path, owner: &str) -> Result<()> {
        match way_back(link) {
            Some((_, holder)) if holder == owner => {
                remove(link).with_context(|| format!("unregister {}", link.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The names of one network for readers, without a lock.
#[derive(Debug, Clone)]
pub struct Zone {
    directory: PathBuf,
}

impl Zone {
    /// The zone below `directory`, `<names>/<network id>`, which need not exist yet or any more.
    pub fn open(directory: PathBuf) -> Zone {
        Zone { directory }
    }

    /// The addresses of everybody who bears `name`, of both families, sorted; `None` when nobody
    /// does. So a name that has IPv4 only is told from one that does not exist.
    pub fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        let directory = self.directory.join(key(name)?);
        let mut addresses = Vec::new();
        for entry in fs::read_dir(&directory).ok()?.map_while(io::Result::ok).take(MOST_BEARERS) {
            // It may be gone since the listing.
            let Ok(text) = fs::read_link(entry.path()) else { continue };
            addresses
                .extend(text.to_str().unwrap_or_default().split(',').filter_map(|text| text.parse::<IpAddr>().ok()));
        }
        addresses.sort_unstable();
        addresses.dedup();
        // A directory on its way in or out is no name.
        (!addresses.is_empty()).then_some(addresses)
    }

    /// The first name of who has `address`, as it was written.
    pub fn reverse(&self, address: IpAddr) -> Option<String> {
        way_back(&self.directory.join(REVERSE).join(address.to_string())).map(|(name, _)| name)
    }
}

/// Name and owner of a way back.
fn way_back(link: &Path) -> Option<(String, String)> {
    let text = fs::read_link(link).ok()?;
    let (name, owner) = text.to_str()?.split_once('/')?;
    Some((name.to_owned(), owner.to_owned()))
}

/// The file name of a name: lower case (RFC 4343), without the dot that ends an absolute name;
/// `None` when it cannot be one.
fn key(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    // Hidden names are not of the field, and are how `.`, `..` and our temporary are written.
    let valid = (1..=253).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.');
    valid.then(|| name.to_ascii_lowercase())
}

/// Whether containers can be found by `name`: 1 to 253 letters, digits, `-`, `_` and `.`, not
/// beginning with a dot. A usage error when not.
pub fn validate(name: &str) -> Result<()> {
    checked(name).map(drop)
}

fn checked(name: &str) -> Result<String> {
    key(name).ok_or_else(|| {
        Failure::usage(format!("invalid network name or alias {name:?}"))
            .with_hint("1 to 253 letters, digits, -, _ and . are allowed")
            .into()
    })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(context),
    };
    entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().with_context(context)
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
