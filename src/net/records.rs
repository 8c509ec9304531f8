//! What networks there are: one JSON file each, found by name or id, and the only value that may
//! write below `<root>/network`.
//!
//! Readers take no lock: a record is replaced as a whole, and one that is damaged hides no other.
//! Writers hold a [`Locked`], the one lock for records, addresses and names of all networks. It is
//! held for a transition, never while a container runs; in the order of locks only the firewall's
//! comes after it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::ipam::{self, Ipam, make_directory, remove};
use super::names::{Names, Zone};
use super::{FORMAT_VERSION, Network};
use crate::error::Failure;
use crate::layout::Layout;
use crate::store::{self, Durability, Lock};
use crate::sys::{fd, random};

/// A new random id: 64 lower-case hexadecimal digits, of which the first twelve are never all
/// decimal (programs that get the short form take it for a number).
pub fn random_id() -> Result<String> {
    loop {
        let mut bytes = [0_u8; 32];
        random::fill(&mut bytes).context("get random bytes")?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if id.as_bytes()[..12].iter().any(u8::is_ascii_lowercase) {
            return Ok(id);
        }
    }
}

/// Docker's rule for names, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 200 bytes: never a path.
pub fn validate_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 200 characters at most"
    ))
    .into())
}

fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    name.len() <= 200 && name.bytes().all(good) && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Ids become names of directories.
fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// The networks of a data root. Cheap: opening asks nothing of the kernel.
#[derive(Debug, Clone)]
pub struct Records {
    layout: Layout,
}

/// What [`Records::list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The networks that can be read, sorted by name.
    pub networks: Vec<Network>,
    /// What is wrong with the others; each error names its file.
    pub problems: Vec<anyhow::Error>,
}

impl Records {
    /// The networks below `layout`'s root.
    pub fn open(layout: &Layout) -> Records {
        Records { layout: layout.clone() }
    }

    /// All networks.
    pub fn list(&self) -> Result<Listing> {
        let directory = self.layout.networks();
        let context = || format!("list {}", directory.display());
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(error).with_context(context),
        };
        for entry in entries {
            let file = entry.with_context(context)?.file_name();
            // Temporaries begin with a dot.
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".json")).filter(|name| is_name(name))
            else {
                continue;
            };
            match self.read(name) {
                Ok(network) => listing.networks.extend(network),
                Err(error) => listing.problems.push(error),
            }
        }
        listing.networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The network called `name`; reads one file.
    pub fn by_name(&self, name: &str) -> Result<Option<Network>> {
        if is_name(name) { self.read(name) } else { Ok(None) }
    }

    /// The network that a user means: a name, a full id, or the beginning of one, in this order.
    ///
    /// Errors: not found; a conflict when several ids begin so; a damaged record of that name.
    pub fn find(&self, reference: &str) -> Result<Network> {
        if let Some(network) = self.by_name(reference)? {
            return Ok(network);
        }
        let listing = self.list()?;
        let (mut matches, others): (Vec<Network>, Vec<Network>) =
            listing.networks.into_iter().partition(|network| is_hex(reference) && network.id.starts_with(reference));
        match (matches.pop(), matches.as_slice()) {
            (Some(network), []) => Ok(network),
            (None, _) => {
                let names: Vec<&str> = others.iter().map(|network| network.name.as_str()).collect();
                let hint = match names.len() {
                    0 => "make it: mydocker network create".to_owned(),
                    1..=8 => format!("there is {}", names.join(", ")),
                    _ => "see mydocker network ls".to_owned(),
                };
                Err(Failure::not_found(format!("network {reference} not found")).with_hint(hint).into())
            }
            (Some(last), several) => {
                let list: Vec<&str> = several.iter().chain([&last]).map(|network| network.name.as_str()).collect();
                let count = list.len();
                Err(Failure::conflict(format!(
                    "network {reference} is ambiguous ({count} matches found based on ID prefix)"
                ))
                .with_hint(format!("give more digits, or a name: {}", list.join(", ")))
                .into())
            }
        }
    }

    /// What a damaged record still tells of the network's id: it stands near the beginning, and a file
    /// that a power cut has torn has lost its end.
    pub fn salvage_id(&self, name: &str) -> Option<String> {
        let bytes = fd::read_small(&self.path(name)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let id = text.split_once("\"id\":\"")?.1.get(..64)?;
        is_id(id).then(|| id.to_owned())
    }

    /// Ids that have addresses or names and no record. Those of a network whose record is damaged are
    /// among them.
    pub fn orphans(&self) -> Result<Vec<String>> {
        let listing = self.list()?;
        let mut orphans = Vec::new();
        for directory in [self.layout.ipam(), self.layout.network_names()] {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            orphans.extend(names.filter(|id| is_id(id) && !listing.networks.iter().any(|network| network.id == *id)));
        }
        orphans.sort();
        orphans.dedup();
        Ok(orphans)
    }

    /// The addresses of `network` that are taken, with their owners, in order of the addresses.
    pub fn leases(&self, network: &Network) -> Result<Vec<(std::net::IpAddr, String)>> {
        ipam::leases(&self.ipam_directory(network), network)
    }

    /// The names of `network`, for a resolver.
    pub fn zone(&self, network: &Network) -> Zone {
        Zone::open(self.names_file(network))
    }

    /// Waits for the lock of all networks.
    pub fn lock(&self) -> Result<Locked> {
        let path = self.layout.network_lock();
        // The directory is missing before the first use of a network, and the file is never
        // deleted: more than one turn is needed only if somebody clears the data root meanwhile.
        for _ in 0..8 {
            if let Some(lock) = Lock::acquire(&path)? {
                return Ok(Locked { records: self.clone(), lock });
            }
            make_durable(&self.layout.network())?;
        }
        Err(Failure::engine(format!("lock {}: it is being removed", path.display())).into())
    }

    /// Reads the record called `name`, which is a name.
    fn read(&self, name: &str) -> Result<Option<Network>> {
        let path = self.path(name);
        let removal = format!("remove the network, as far as it is still known: mydocker network rm {name}");
        let network = match store::read_json::<Network>(&path) {
            Ok(Some(network)) => network,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Failure::from_error(&error).with_hint(removal).into()),
        };
        let reason = if network.version > FORMAT_VERSION {
            format!("it is of version {}, and this program knows {FORMAT_VERSION} at most", network.version)
        } else if network.name != name {
            format!("it describes network {:?}", network.name)
        } else if !is_id(&network.id) {
            format!("{:?} is not a network id", network.id)
        } else {
            return Ok(Some(network));
        };
        Err(Failure::engine(format!("{} cannot be used: {reason}", path.display())).into())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.networks().join(format!("{name}.json"))
    }

    fn ipam_directory(&self, network: &Network) -> PathBuf {
        self.layout.ipam().join(&network.id)
    }

    fn names_file(&self, network: &Network) -> PathBuf {
        self.layout.network_names().join(&network.id)
    }
}

/// The networks under their lock: the only value that can change them.
#[derive(Debug)]
pub struct Locked {
    records: Records,
    lock: Lock,
}

impl Locked {
    /// The readers, for a look under the lock.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// The lock itself.
    pub fn held(&self) -> &Lock {
        &self.lock
    }

    /// Writes the record of a network; it survives a power cut. A conflict when another network has
    /// its name.
    pub fn save(&self, network: &Network) -> Result<()> {
        validate_name(&network.name)?;
        check_id(network)?;
        if let Some(other) = self.records.read(&network.name)?
            && other.id != network.id
        {
            return Err(Failure::conflict(format!("network with name {} already exists", network.name))
                .with_hint(format!("choose another name, or remove it: mydocker network rm {}", network.name))
                .into());
        }
        make_durable(&self.records.layout.networks())?;
        self.remove_temporaries();
        store::write_json(&self.records.path(&network.name), network, Durability::PowerCut)
    }

    /// Removes a network: its names, its addresses, and its record last, so that a removal that was
    /// interrupted can be asked for again. Harmless when repeated, or when another network has the
    /// name by now.
    pub fn remove(&self, network: &Network) -> Result<()> {
        validate_name(&network.name)?;
        check_id(network)?;
        let names = self.records.names_file(network);
        remove(&names).with_context(|| format!("remove {}", names.display()))?;
        remove_tree(&self.records.ipam_directory(network))?;
        let path = self.records.path(&network.name);
        match self.records.read(&network.name)? {
            Some(recorded) if recorded.id == network.id => {
                remove(&path).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes addresses and names of a network of which nothing is known but the id.
    pub fn forget(&self, id: &str) -> Result<()> {
        if is_id(id) {
            let names = self.records.layout.network_names().join(id);
            remove(&names).with_context(|| format!("remove {}", names.display()))?;
            remove_tree(&self.records.layout.ipam().join(id))?;
        }
        Ok(())
    }

    /// Removes the record called `name` whatever it says: for one that is damaged. What it had
    /// elsewhere goes with [`Locked::forget`] or [`Locked::remove_orphans`].
    pub fn discard(&self, name: &str) -> Result<()> {
        validate_name(name)?;
        let path = self.records.path(name);
        remove(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Removes addresses and names of networks that have no record. Does nothing while a record is
    /// damaged: they may be its.
    pub fn remove_orphans(&self) -> Result<()> {
        let listing = self.records.list()?;
        if !listing.problems.is_empty() {
            return Ok(());
        }
        for directory in [self.records.layout.ipam(), self.records.layout.network_names()] {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if !listing.networks.iter().any(|network| name == network.id.as_str()) {
                    match entry.path() {
                        path if path.is_dir() => remove_tree(&path)?,
                        path => remove(&path).with_context(|| format!("remove {}", path.display()))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The addresses of `network`.
    pub fn ipam<'a>(&'a self, network: &'a Network) -> Ipam<'a> {
        Ipam::new(self.records.ipam_directory(network), network, &self.lock)
    }

    /// The names of `network`.
    pub fn names(&self, network: &Network) -> Names<'_> {
        Names::new(self.records.names_file(network), &self.lock)
    }

    /// Removes what writers that were killed have left: whoever writes here holds the lock.
    fn remove_temporaries(&self) {
        let Ok(entries) = fs::read_dir(self.records.layout.networks()) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn check_id(network: &Network) -> Result<()> {
    if is_id(&network.id) {
        return Ok(());
    }
    Err(Failure::engine(format!("{:?} is not a network id", network.id)).into())
}

/// Makes a directory, and its entry in the one above, so that they survive a power cut.
fn make_durable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directory(path)?;
    for above in path.ancestors().skip(1).take(2) {
        File::open(above)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("sync {}", above.display()))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
