//! Which names lead where on a network, in a form that a resolver in another process reads from the
//! file system as it is at that moment.
//!
//! ```text
//! <names>/<network id>     a table of records (see `table`):
//!   web            <owner>   10.0.0.2,fd00::2     a name in lower case, one who bears it, the addresses
//!   @10.0.0.2      <owner>   Web                  the way back
//! ```
//!
//! A question costs an open(2) and two reads, whatever the number of containers and names. Readers
//! take no lock and meet the old or the new. The records are changed in place, and no file or
//! directory is made for a name, because an inode costs ext4 50 µs when it is idle and a millisecond
//! when it is not (`docs/performance.md`), and a container has half a dozen names.
//!
//! Names come from users and from packets. None becomes a path, and those that are not made of
//! letters, digits, `-`, `_` and `.` are neither registered nor looked up.
//!
//! A registration that kill -9 cut short leaves some of its records; [`Names::unregister`] and
//! [`Names::register`] are harmless when repeated, and [`Names::unregister_owner`] needs to know
//! nothing but the owner. Names go before their addresses are released, so that no name ever leads
//! to another's address.

mod table;

use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use self::table::{Record, Table};
use super::ipam::{check_owner, make_directory};
use crate::error::Failure;
use crate::store::Lock;

/// The names of one network, under the lock of all networks ([`super::records::Locked::names`]).
#[derive(Debug)]
pub struct Names<'a> {
    path: PathBuf,
    lock: PhantomData<&'a Lock>,
}

impl<'a> Names<'a> {
    pub(super) fn new(path: PathBuf, _held: &'a Lock) -> Names<'a> {
        Names { path, lock: PhantomData }
    }

    /// Lets `names` lead to `addresses`, and `addresses` back to the first of the names. Several
    /// owners may bear a name. What `owner` has registered before under one of them is replaced.
    ///
    /// Errors: a usage error for a name that cannot be one, or more addresses than 255 characters
    /// hold, before anything is written.
    pub fn register(&self, owner: &str, names: &[String], addresses: &[IpAddr]) -> Result<()> {
        check_owner(owner)?;
        let keys = names.iter().map(|name| checked(name)).collect::<Result<Vec<_>>>()?;
        let value = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        if value.len() > 255 {
            return Err(Failure::usage(format!("too many addresses for one name: {value}")).into());
        }
        let Some(primary) = names.first().filter(|_| !value.is_empty()) else { return Ok(()) };
        let primary = primary.strip_suffix('.').unwrap_or(primary);
        let mut table = match self.open()? {
            Some(table) => table,
            None => {
                if let Some(directory) = self.path.parent() {
                    make_directory(directory)?;
                }
                Table::create(&self.path).with_context(|| self.context())?
            }
        };
        let owner = owner.to_owned();
        let forth = keys.into_iter().map(|key| (key, value.clone()));
        let back = addresses.iter().map(|address| (way_back(*address), primary.to_owned()));
        for (key, value) in forth.chain(back) {
            table.put(&Record { key, owner: owner.clone(), value }).with_context(|| self.context())?;
        }
        Ok(())
    }

    /// Takes back what [`Names::register`] did with these arguments; other owners keep theirs.
    /// Harmless when repeated.
    pub fn unregister(&self, owner: &str, names: &[String], addresses: &[IpAddr]) -> Result<()> {
        let Some(mut table) = self.open()? else { return Ok(()) };
        let names = names.iter().filter_map(|name| key(name));
        for key in names.chain(addresses.iter().map(|address| way_back(*address))) {
            table.remove(&key, |record| record.owner == owner).with_context(|| self.context())?;
        }
        Ok(())
    }

    /// Takes back everything of `owner`, whatever it is. Looks at every name.
    pub fn unregister_owner(&self, owner: &str) -> Result<()> {
        self.sweep(&mut |other| other != owner)
    }

    /// Takes back everything of owners that are gone. Looks at every name; asks `alive` once an owner.
    pub fn sweep(&self, alive: &mut dyn FnMut(&str) -> bool) -> Result<()> {
        let Some(mut table) = self.open()? else { return Ok(()) };
        let mut owners: Vec<String> =
            table.all().with_context(|| self.context())?.into_iter().map(|record| record.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.retain(|owner| !alive(owner));
        if owners.is_empty() {
            return Ok(());
        }
        table.remove_everywhere(|record| owners.contains(&record.owner)).with_context(|| self.context())
    }

    /// `None` when there is none, or one that is damaged beyond use, which is as good.
    fn open(&self) -> Result<Option<Table>> {
        Table::open_for_writing(&self.path).with_context(|| self.context())
    }

    fn context(&self) -> String {
        format!("update names {}", self.path.display())
    }
}

/// The names of one network for readers, without a lock.
#[derive(Debug, Clone)]
pub struct Zone {
    path: PathBuf,
}

impl Zone {
    /// The zone in `path`, `<names>/<network id>`, which need not exist yet or any more: it is
    /// looked at with each question.
    pub fn open(path: PathBuf) -> Zone {
        Zone { path }
    }

    /// The addresses of everybody who bears `name`, of both families, sorted; `None` when nobody
    /// does. So a name that has IPv4 only is told from one that does not exist.
    pub fn lookup(&self, name: &str) -> Option<Vec<IpAddr>> {
        let records = Table::open(&self.path)?.find(&key(name)?);
        let texts = records.iter().flat_map(|record| record.value.split(','));
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// The first name of who has `address`, as it was written.
    pub fn reverse(&self, address: IpAddr) -> Option<String> {
        // Of several, which only a late unregistration leaves for a moment, one that is always the same.
        Table::open(&self.path)?.find(&way_back(address)).into_iter().map(|record| record.value).min()
    }
}

/// The key of the way back from an address: no name is written like that.
fn way_back(address: IpAddr) -> String {
    format!("@{address}")
}

/// The key of a name: lower case (RFC 4343), without the dot that ends an absolute name; `None` when
/// it cannot be one.
fn key(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
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

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
