//! Which addresses of a network are taken, and by whom.
//!
//! ```text
//! <ipam>/<network id>/leases/<address>     a symbolic link whose text is the owner: the truth
//! <ipam>/<network id>/<subnet>.bitmap      where to look for a free one: an index (see `bitmap`)
//! ```
//!
//! symlink(2) claims an address: it fails when somebody has it. So no address is ever given twice,
//! whatever the index says; readers need no lock, and an owner's name costs one readlink(2).
//!
//! # What kill -9 leaves
//!
//! - Taking makes the link, *then* sets the bit. In between: a lease without a bit. The next search
//!   that comes by fails to make its link, sets the bit, and goes on.
//! - Releasing clears the bit, *then* removes the link. In between: the same state, and the owner
//!   still has the address; releasing again ends it.
//!
//! So the only half-done state is the harmless one. A bit without a lease, which would be an address
//! that nobody gets, needs a power cut (nothing here is flushed) or a hand; it is found when a
//! network seems full: the index is then made anew from the leases before anybody is turned away.
//! An index that is missing, cut short or of another format is made anew at once.
//!
//! A lease whose owner died between taking and recording it stays until [`Ipam::release_owner`] or
//! [`Ipam::sweep`], which look at all of them.

mod bitmap;

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::bitmap::{Bitmap, Window};
use super::pools::is_host;
use super::{Network, Subnet};
use crate::error::Failure;
use crate::store::Lock;

/// So many addresses in a row that the index took for free and that were not: it is of no use.
const SURPRISES: u32 = 16;

/// The addresses of one network, under the lock of all networks
/// ([`super::records::Locked::ipam`]).
#[derive(Debug)]
pub struct Ipam<'a> {
    directory: PathBuf,
    network: &'a Network,
    lock: PhantomData<&'a Lock>,
}

impl<'a> Ipam<'a> {
    pub(super) fn new(directory: PathBuf, network: &'a Network, _held: &'a Lock) -> Ipam<'a> {
        Ipam { directory, network, lock: PhantomData }
    }

    /// Takes an address of `subnet` for `owner`: `wanted`, or the next free one.
    ///
    /// An address that is wanted may lie outside the subnet's range, as with Docker, and is given
    /// again to an owner that has it. Errors: a conflict when another has it, or when none is left;
    /// a usage error when it is no host address of the subnet.
    pub fn allocate(&self, subnet: &Subnet, owner: &str, wanted: Option<IpAddr>) -> Result<IpAddr> {
        match wanted {
            Some(address) => self.take(subnet, owner, address).map(|()| address),
            None => self.try_allocate(subnet, owner)?.ok_or_else(|| self.exhausted(subnet)),
        }
    }

    /// Takes the next free address; `None` when all are in use. Who gets that may [`Ipam::sweep`]
    /// and try again.
    pub fn try_allocate(&self, subnet: &Subnet, owner: &str) -> Result<Option<IpAddr>> {
        check_owner(owner)?;
        let window = Window::of(subnet);
        let path = self.index(subnet);
        let context = || format!("search {}", path.display());
        let mut rebuilt = false;
        let mut surprises = 0;
        let mut bitmap = match Bitmap::open(&path, window).with_context(context)? {
            Some(bitmap) => bitmap,
            None => {
                rebuilt = true;
                self.rebuild(subnet, 0)?
            }
        };
        loop {
            let place = match bitmap.next_free() {
                Ok(Some(place)) if surprises < SURPRISES || rebuilt => place,
                Ok(None) if rebuilt => return Ok(None),
                Err(error) if rebuilt || error.kind() != ErrorKind::UnexpectedEof => {
                    return Err(error).with_context(context);
                }
                // Full, wrong too often, or cut short: ask the leases, once.
                _ => {
                    rebuilt = true;
                    bitmap = self.rebuild(subnet, bitmap.cursor())?;
                    continue;
                }
            };
            let address = window.address(place);
            if !is_reserved(subnet, address) && self.claim(address, owner)? {
                if let Err(error) = bitmap.take(place) {
                    // Nobody will be told that the address is theirs.
                    let _ = fs::remove_file(self.lease(address));
                    return Err(error).with_context(context);
                }
                return Ok(Some(address));
            }
            surprises += 1;
            bitmap.mark(place).with_context(context)?;
        }
    }

    /// Gives `address` back if `owner` has it; harmless when repeated.
    pub fn release(&self, address: IpAddr, owner: &str) -> Result<()> {
        if self.holder(address)?.as_deref() != Some(owner) {
            return Ok(());
        }
        if let Some(subnet) = self.network.subnets.iter().find(|subnet| subnet.subnet.contains(address)) {
            self.forget(subnet, address);
        }
        remove(&self.lease(address)).with_context(|| format!("release address {address}"))
    }

    /// Gives back whatever `owner` has and says what that was. Looks at every lease.
    pub fn release_owner(&self, owner: &str) -> Result<Vec<IpAddr>> {
        let freed = self.sweep(&mut |other| other != owner)?;
        Ok(freed.into_iter().map(|(address, _)| address).collect())
    }

    /// Gives back the addresses of owners that are gone, and says whose they were. Looks at every
    /// lease; asks `alive` once an owner in a row.
    pub fn sweep(&self, alive: &mut dyn FnMut(&str) -> bool) -> Result<Vec<(IpAddr, String)>> {
        let mut leases = self.leases()?;
        // Side by side for the question, and in order for whoever reads the answer.
        leases.sort_by(|(a, one), (b, other)| (one, a).cmp(&(other, b)));
        let mut gone = Vec::new();
        for same_owner in leases.chunk_by(|(_, one), (_, other)| one == other) {
            if !alive(&same_owner[0].1) {
                gone.extend_from_slice(same_owner);
            }
        }
        for (address, owner) in &gone {
            self.release(*address, owner)?;
        }
        Ok(gone)
    }

    /// Every address that is taken with its owner, in order of the addresses.
    pub fn leases(&self) -> Result<Vec<(IpAddr, String)>> {
        leases(&self.directory)
    }

    /// Who has `address`.
    pub fn holder(&self, address: IpAddr) -> Result<Option<String>> {
        read_owner(&self.lease(address)).with_context(|| format!("read lease of {address}"))
    }

    fn take(&self, subnet: &Subnet, owner: &str, address: IpAddr) -> Result<()> {
        check_owner(owner)?;
        if !subnet.subnet.contains(address) {
            return Err(Failure::usage(format!("no configured subnet contains IP address {address}"))
                .with_hint(format!("network {} has {}", self.network.name, subnet.subnet))
                .into());
        }
        if is_reserved(subnet, address) {
            let reason = reservation(subnet, address);
            return Err(Failure::conflict(format!("Address already in use: {address} is {reason}")).into());
        }
        if !self.claim(address, owner)? {
            return match self.holder(address)? {
                Some(holder) if holder == owner => Ok(()),
                holder => {
                    let holder = holder.unwrap_or_default();
                    let short = holder.get(..12).unwrap_or(&holder);
                    Err(Failure::conflict(format!("Address already in use: {address} belongs to {short}"))
                        .with_hint(format!("leave the choice to the network, or free it: mydocker rm {short}"))
                        .into())
                }
            };
        }
        // A bit that is not set is found out by the next search that comes by.
        if let Some(place) = Window::of(subnet).number(address)
            && let Ok(Some(mut bitmap)) = Bitmap::open(&self.index(subnet), Window::of(subnet))
        {
            let _ = bitmap.mark(place);
        }
        Ok(())
    }

    /// Makes the lease; `false` when there is one.
    fn claim(&self, address: IpAddr, owner: &str) -> Result<bool> {
        let link = self.lease(address);
        let mut made = symlink(owner, &link);
        if made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            make_directory(&self.directory.join("leases"))?;
            made = symlink(owner, &link);
        }
        match made {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("claim address {address}")),
        }
    }

    /// Clears the bit of an address whose lease is about to go. An index that cannot be written is
    /// removed, so that the next search makes it anew.
    fn forget(&self, subnet: &Subnet, address: IpAddr) {
        let window = Window::of(subnet);
        let Some(place) = window.number(address).filter(|_| !is_reserved(subnet, address)) else { return };
        let path = self.index(subnet);
        let cleared = match Bitmap::open(&path, window) {
            Ok(Some(mut bitmap)) => bitmap.clear(place),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if cleared.is_err() {
            let _ = remove(&path);
        }
    }

    fn rebuild(&self, subnet: &Subnet, cursor: u32) -> Result<Bitmap> {
        make_directory(&self.directory)?;
        let window = Window::of(subnet);
        let mut taken = Vec::new();
        for_each_lease(&self.directory, |address, _| taken.extend(window.number(address)))?;
        let path = self.index(subnet);
        Bitmap::build(&path, subnet, &taken, cursor).with_context(|| format!("write {}", path.display()))
    }

    fn exhausted(&self, subnet: &Subnet) -> anyhow::Error {
        let (name, count) = (&self.network.name, Window::of(subnet).capacity(subnet));
        let range = subnet.range.unwrap_or(subnet.subnet);
        Failure::conflict(format!("no available addresses on network {name} ({range}): all {count} are in use"))
            .with_hint(format!(
                "remove containers of the network, or make a larger one; see mydocker network inspect {name}"
            ))
            .into()
    }

    fn lease(&self, address: IpAddr) -> PathBuf {
        self.directory.join(format!("leases/{address}"))
    }

    fn index(&self, subnet: &Subnet) -> PathBuf {
        self.directory.join(format!("{}_{}.bitmap", subnet.subnet.network(), subnet.subnet.prefix()))
    }
}

/// The leases of a network's directory, in order of the addresses; needs no lock.
pub(super) fn leases(directory: &Path) -> Result<Vec<(IpAddr, String)>> {
    let mut found = Vec::new();
    for_each_lease(directory, |address, link| found.push((address, link)))?;
    let mut leases = Vec::with_capacity(found.len());
    for (address, link) in found {
        // One that was released meanwhile is none.
        if let Some(owner) = read_owner(&link).with_context(|| format!("read lease of {address}"))? {
            leases.push((address, owner));
        }
    }
    leases.sort();
    Ok(leases)
}

fn for_each_lease(directory: &Path, mut see: impl FnMut(IpAddr, PathBuf)) -> Result<()> {
    let directory = directory.join("leases");
    let context = || format!("list {}", directory.display());
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(context),
    };
    for entry in entries {
        let entry = entry.with_context(context)?;
        if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            see(address, entry.path());
        }
    }
    Ok(())
}

fn read_owner(link: &Path) -> io::Result<Option<String>> {
    match fs::read_link(link) {
        Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
        // Released meanwhile, or no link at all: nothing of ours.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An address that is never given: none of a host, the gateway's, an auxiliary one.
fn is_reserved(subnet: &Subnet, address: IpAddr) -> bool {
    !is_host(&subnet.subnet, address)
        || subnet.gateway == Some(address)
        || subnet.auxiliary.values().any(|other| *other == address)
}

fn reservation(subnet: &Subnet, address: IpAddr) -> String {
    if subnet.gateway == Some(address) {
        return "the gateway".to_owned();
    }
    match subnet.auxiliary.iter().find(|(_, other)| **other == address) {
        Some((name, _)) => format!("the aux-address {name}"),
        None => format!("the network or broadcast address of {}", subnet.subnet),
    }
}

/// An owner becomes a link's text here and a file name in `names`.
pub(super) fn check_owner(owner: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if owner.bytes().all(good) && !owner.starts_with('.') && (1..=128).contains(&owner.len()) {
        return Ok(());
    }
    Err(Failure::engine(format!("{owner:?} cannot own an address")).into())
}

/// Removes a file that may be gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Makes a directory and those above it, private.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("create {}", path.display()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
