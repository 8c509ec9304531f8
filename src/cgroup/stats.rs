//! What a group has used and is using, as the kernel counts it, in both versions.
//!
//! Nested groups are included everywhere. A quantity whose controller is not there counts as 0: a container without
//! a memory controller still has CPU time to show. Somebody who looks every second keeps a [`Meter`]: opening a
//! file of cgroupfs costs 5 µs, reading one that is open 0.5 (`memory.stat` 6).

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{io, str};

use anyhow::{Context, Result};

use super::{Group, Mode};
use crate::error::Failure;

/// What a group has used since it was made (CPU, I/O) and uses now (memory, tasks).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its processes, ended ones included, in nanoseconds.
    pub cpu: u64,
    /// Memory charged to it, page cache included, in bytes.
    pub memory: u64,
    /// The part of [`memory`](Self::memory) that is page cache nobody has used lately, in bytes: the kernel takes it
    /// back first, so Docker does not count it as used.
    pub inactive_file: u64,
    /// Its own memory limit in bytes; `None` without one.
    pub memory_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to block devices. In v1 only what processes wrote themselves (`O_DIRECT`, `O_SYNC`): what the
    /// kernel writes back later is charged to nobody there.
    pub written: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Usage {
    /// Memory as Docker shows it: without the cache that nobody has used lately.
    pub fn memory_without_cache(&self) -> u64 {
        // Read one after the other, so the part may exceed the whole; Docker shows the whole then.
        self.memory.checked_sub(self.inactive_file).filter(|bytes| *bytes > 0).unwrap_or(self.memory)
    }
}

/// What becomes of a [`Meter`]'s descriptors between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// They stay open: up to six of them.
    Hold,
    /// Each is closed when its file has been read.
    Release,
}

impl Group {
    /// What the group has used and is using.
    ///
    /// # Errors
    /// The group does not exist, or a file of it cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let usage = self.meter(Descriptors::Release).usage()?;
        usage.ok_or_else(|| Failure::engine(format!("read {}: it does not exist", self.label())).into())
    }

    /// Something to read the group's usage with again and again. Opens nothing yet.
    pub fn meter(&self, descriptors: Descriptors) -> Meter {
        let source = |controller: &str, names: &[&str]| {
            let paths = self.directory(controller).map(|path| names.iter().map(|name| path.join(name)).collect());
            Source { paths: paths.unwrap_or_default(), file: None, descriptors }
        };
        match self.mode {
            Mode::V2 => Meter {
                cpu: source("cpu", &["cpu.stat"]),
                memory: source("memory", &["memory.current"]),
                memory_parts: source("memory", &["memory.stat"]),
                memory_limit: source("memory", &["memory.max"]),
                io: source("io", &["io.stat"]),
                tasks: source("pids", &["pids.current"]),
                format: &V2,
            },
            Mode::V1 | Mode::Hybrid => Meter {
                cpu: source("cpuacct", &["cpuacct.usage"]),
                memory: source("memory", &["memory.usage_in_bytes"]),
                memory_parts: source("memory", &["memory.stat"]),
                memory_limit: source("memory", &["memory.limit_in_bytes"]),
                // The second on kernels that lack the first; it leaves nested groups out.
                io: source("blkio", &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"]),
                tasks: source("pids", &["pids.current"]),
                format: &V1,
            },
        }
    }
}

/// A group's files, to be read again and again.
#[derive(Debug)]
pub struct Meter {
    cpu: Source,
    memory: Source,
    memory_parts: Source,
    memory_limit: Source,
    io: Source,
    tasks: Source,
    format: &'static Format,
}

impl Meter {
    /// CPU time alone, in nanoseconds: one file. `None` when the group is gone.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn cpu(&mut self) -> Result<Option<u64>> {
        Ok(self.cpu.read(&mut buffer())?.map(self.format.cpu))
    }

    /// Everything. `None` when the group is gone, which is how containers end between two readings.
    ///
    /// # Errors
    /// A file exists and cannot be read.
    pub fn usage(&mut self) -> Result<Option<Usage>> {
        let Meter { cpu, memory, memory_parts, memory_limit, io, tasks, format } = self;
        // One for all, and for all groups the same memory again: that of each would have to come from far away.
        let text = &mut buffer();
        let Some(cpu) = cpu.read(text)?.map(format.cpu) else { return Ok(None) };
        let Some(memory) = memory.read(text)?.map(number) else { return Ok(None) };
        let Some(inactive_file) = memory_parts.read(text)?.map(format.inactive_file) else { return Ok(None) };
        let Some(memory_limit) = memory_limit.read(text)?.map(format.memory_limit) else { return Ok(None) };
        let Some((read, written)) = io.read(text)?.map(format.io) else { return Ok(None) };
        let Some(tasks) = tasks.read(text)?.map(number) else { return Ok(None) };
        Ok(Some(Usage { cpu, memory, inactive_file, memory_limit, read, written, tasks }))
    }
}

/// A file, under the first of its names that exists.
#[derive(Debug)]
struct Source {
    paths: Vec<PathBuf>,
    file: Option<File>,
    descriptors: Descriptors,
}

impl Source {
    /// The file's text; empty when its controller is not there, `None` when its group is gone.
    fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Result<Option<&'a str>> {
        if self.file.is_none() {
            let mut opened = Err(io::Error::from(ErrorKind::NotFound));
            for path in &self.paths {
                opened = File::open(path);
                if !matches!(&opened, Err(error) if error.kind() == ErrorKind::NotFound) {
                    break;
                }
            }
            self.file = match opened {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let group = self.paths.first().and_then(|path| path.parent());
                    return Ok(if group.is_none_or(Path::exists) { Some("") } else { None });
                }
                Err(error) => return Err(error).with_context(|| self.label()),
            };
        }
        let Some(file) = &self.file else { return Ok(None) };
        let result = read_whole(file, buffer);
        if self.descriptors == Descriptors::Release {
            self.file = None;
        }
        match result {
            Ok(length) => Ok(Some(buffer.get(..length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default())),
            // kernfs: the file's group has been removed.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            // Some files of v2 do not answer in a threaded group.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Some("")),
            Err(error) => Err(error).with_context(|| self.label()),
        }
    }

    fn label(&self) -> String {
        format!("read {}", self.paths.first().map(|path| path.display().to_string()).unwrap_or_default())
    }
}

/// Room for most texts.
fn buffer() -> Vec<u8> {
    vec![0; 4096]
}

/// Reads from the start, in one go: cgroupfs makes a file's text anew for each reading that begins there. The length
/// of the text; the buffer grows when it has to.
fn read_whole(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, 0) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(length) if length == buffer.len() => buffer.resize(length * 2, 0),
            result => return result,
        }
    }
}

/// How a version writes what it counts. Texts may be empty; whatever is not understood counts as 0.
#[derive(Debug)]
struct Format {
    cpu: fn(&str) -> u64,
    inactive_file: fn(&str) -> u64,
    memory_limit: fn(&str) -> Option<u64>,
    io: fn(&str) -> (u64, u64),
}

/// `Documentation/admin-guide/cgroup-v1/{cpuacct,memory,blkio-controller}.rst`.
static V1: Format = Format {
    cpu: number,
    inactive_file: |text| field(text, "total_inactive_file"),
    // "None" is the largest number of whole pages, near 2^63.
    memory_limit: |text| text.trim().parse().ok().filter(|limit| *limit < 1 << 62),
    // `8:0 Read 4096`, once per device and operation; sums (`Total`) and other ways to count the same are left out.
    io: |text| {
        let bytes = |operation: &str| {
            let value = |line: &str| {
                let mut words = line.split_ascii_whitespace().skip(1);
                words.next().filter(|word| *word == operation)?;
                words.next()?.parse::<u64>().ok()
            };
            text.lines().filter_map(value).fold(0, u64::saturating_add)
        };
        (bytes("Read"), bytes("Write"))
    },
};

/// `Documentation/admin-guide/cgroup-v2.rst`.
static V2: Format = Format {
    cpu: |text| field(text, "usage_usec").saturating_mul(1000),
    inactive_file: |text| field(text, "inactive_file"),
    // "None" is the word `max`.
    memory_limit: |text| text.trim().parse().ok(),
    // `8:0 rbytes=4096 wbytes=0 rios=1 …`, once per device.
    io: |text| {
        let bytes = |key: &str| {
            let values = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            values.filter_map(|value| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
        };
        (bytes("rbytes"), bytes("wbytes"))
    },
};

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number behind `name` in lines of `name number`.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(number);
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
