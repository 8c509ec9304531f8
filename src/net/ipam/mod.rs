//! Which addresses of a network are taken, and by whom.
//!
//! ```text
//! <ipam>/<network id>/<subnet>.owners      the owner of each address: the truth (see `owners`)
//! <ipam>/<network id>/<subnet>.bitmap      where to look for a free one: an index (see `bitmap`)
//! <ipam>/<network id>/leases/<address>     the same truth for addresses outside of the range, or
//!                                          behind the first 2^24 of a subnet, which only a user
//!                                          who asks for them gets: a link whose text is the owner
//! ```
//!
//! An address is taken when it has an owner there, whatever the index says, and owners change under
//! the lock only; so no address is ever given twice. Readers need no lock.
//!
//! # What kill -9 leaves
//!
//! - Taking writes the owner, *then* sets the bit. In between: an owner without a bit. The next
//!   search that comes by sees the owner, sets the bit, and goes on.
//! - Releasing clears the bit, *then* the owner. In between: the same state, and the owner still has
//!   the address; releasing again ends it.
//!
//! So the only half-done state is the harmless one. A bit without an owner, which would be an
//! address that nobody gets, needs a power cut (nothing here is flushed) or a hand; it is found when
//! a network seems full: the index is then made anew from the owners before anybody is turned away.
//! An index that is missing, cut short or of another format is made anew at once.
//!
//! The address of an owner that died between taking and recording it stays taken until
//! [`Ipam::release_owner`] or [`Ipam::sweep`], which look at all of them.

mod bitmap;
mod owners;

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::bitmap::{Bitmap, Window};
use self::owners::Owners;
pub(super) use self::owners::checksum;
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
        let owners = self.owners(subnet)?;
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
            if !is_reserved(subnet, address) && owners.get(place).with_context(context)?.is_none() {
                owners.set(place, owner).with_context(|| format!("take address {address}"))?;
                if let Err(error) = bitmap.take(place) {
                    // Nobody will be told that the address is theirs.
                    let _ = owners.clear(place);
                    return Err(error).with_context(context);
                }
                return Ok(Some(address));
            }
            surprises += 1;
            bitmap.mark(place).with_context(context)?;
        }
    }

    /// Makes the files of all subnets, so that no container's start waits for that.
    pub fn prepare(&self) -> Result<()> {
        for subnet in &self.network.subnets {
            let path = self.index(subnet);
            if Bitmap::open(&path, Window::of(subnet)).with_context(|| format!("open {}", path.display()))?.is_none() {
                self.rebuild(subnet, 0)?;
            }
        }
        Ok(())
    }

    /// Gives `address` back if `owner` has it; harmless when repeated.
    pub fn release(&self, address: IpAddr, owner: &str) -> Result<()> {
        if self.holder(address)?.as_deref() != Some(owner) {
            return Ok(());
        }
        let context = || format!("release address {address}");
        match self.place(address) {
            Some((subnet, place)) => {
                self.forget(subnet, place);
                self.owners(subnet)?.clear(place).with_context(context)
            }
            None => remove(&self.lease(address)).with_context(context),
        }
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
            // A damaged record names nobody, who is not alive.
            let owner = &same_owner[0].1;
            if owner.is_empty() || !alive(owner) {
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
        leases(&self.directory, self.network)
    }

    /// Who has `address`.
    pub fn holder(&self, address: IpAddr) -> Result<Option<String>> {
        let holder = match self.place(address) {
            Some((subnet, place)) => match Owners::open_for_reading(&table(&self.directory, subnet)) {
                Ok(Some(owners)) => owners.get(place),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            },
            None => read_owner(&self.lease(address)),
        };
        holder.with_context(|| format!("read the owner of {address}"))
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
        match self.holder(address)? {
            Some(holder) if holder == owner => return Ok(()),
            Some(holder) => {
                let short = holder.get(..12).unwrap_or(&holder);
                return Err(Failure::conflict(format!("Address already in use: {address} belongs to {short}"))
                    .with_hint(format!("leave the choice to the network, or free it: mydocker rm {short}"))
                    .into());
            }
            None => {}
        }
        let context = || format!("take address {address}");
        let Some((subnet, place)) = self.place(address) else {
            make_directory(&self.directory.join("leases"))?;
            return symlink(owner, self.lease(address)).with_context(context);
        };
        self.owners(subnet)?.set(place, owner).with_context(context)?;
        // A bit that is not set is found out by the next search that comes by.
        if let Ok(Some(mut bitmap)) = Bitmap::open(&self.index(subnet), Window::of(subnet)) {
            let _ = bitmap.mark(place);
        }
        Ok(())
    }

    /// The subnet of an address and its place there; `None` when it lies outside of what is counted.
    fn place(&self, address: IpAddr) -> Option<(&Subnet, u32)> {
        let subnet = self.network.subnets.iter().find(|subnet| subnet.subnet.contains(address))?;
        Some((subnet, Window::of(subnet).number(address)?))
    }

    /// Clears the bit of an address whose owner is about to go. An index that cannot be written is
    /// removed, so that the next search makes it anew.
    fn forget(&self, subnet: &Subnet, place: u32) {
        let path = self.index(subnet);
        let cleared = match Bitmap::open(&path, Window::of(subnet)) {
            Ok(Some(mut bitmap)) => bitmap.clear(place),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if cleared.is_err() {
            let _ = remove(&path);
        }
    }

    /// The table of owners, made when missing.
    fn owners(&self, subnet: &Subnet) -> Result<Owners> {
        let path = table(&self.directory, subnet);
        let mut opened = Owners::open(&path);
        if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            make_directory(&self.directory)?;
            opened = Owners::open(&path);
        }
        opened.with_context(|| format!("open {}", path.display()))
    }

    fn rebuild(&self, subnet: &Subnet, cursor: u32) -> Result<Bitmap> {
        let owners = self.owners(subnet)?;
        let mut taken = Vec::new();
        let count = Window::of(subnet).count();
        owners.each(count, |place, _| taken.push(place)).context("read owners of addresses")?;
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
        self.directory.join(format!("{}.bitmap", file_name(subnet)))
    }
}

fn table(directory: &Path, subnet: &Subnet) -> PathBuf {
    directory.join(format!("{}.owners", file_name(subnet)))
}

fn file_name(subnet: &Subnet) -> String {
    format!("{}_{}", subnet.subnet.network(), subnet.subnet.prefix())
}

/// Every address of a network that is taken with its owner, in order of the addresses; needs no lock.
pub(super) fn leases(directory: &Path, network: &Network) -> Result<Vec<(IpAddr, String)>> {
    let mut leases = Vec::new();
    for subnet in &network.subnets {
        let path = table(directory, subnet);
        let context = || format!("read {}", path.display());
        let window = Window::of(subnet);
        if let Some(owners) = Owners::open_for_reading(&path).with_context(context)? {
            let see = |place, owner| leases.push((window.address(place), owner));
            owners.each(window.count(), see).with_context(context)?;
        }
    }
    let mut links = Vec::new();
    for_each_lease(directory, |address, link| links.push((address, link)))?;
    for (address, link) in links {
        // One that was released meanwhile is none.
        if let Some(owner) = read_owner(&link).with_context(|| format!("read the owner of {address}"))? {
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

/// An owner becomes a record or a link's text.
pub(super) fn check_owner(owner: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if owner.bytes().all(good) && !owner.starts_with('.') && (1..=owners::LONGEST).contains(&owner.len()) {
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
