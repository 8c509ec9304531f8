//! `stats`: what containers use, round after round.
//!
//! A round over a hundred containers has to be cheap, so a [`Monitor`] keeps between rounds whatever does not change:
//! records that nobody has rewritten (one `stat` of the container's directory tells), the open files of each cgroup,
//! a handle on each first process. What is left is a read of half a microsecond per number.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

use super::host;
use crate::cgroup::{Cgroups, Descriptors, Meter};
use crate::container::handle::{self, Record};
use crate::container::{ContainerId, NetworkMode, ProcessRef};
use crate::engine::{Engine, resources};
use crate::error::{Class, Failure};
use crate::sys::{clock, process, procfs};

/// Time between the two readings that a CPU percentage needs, where nothing has been read before.
///
/// The kernel charges a running process at each of its clock's interrupts, every 4 ms as a rule: over half a second
/// that is an error below one per cent. It also holds five periods of a CPU quota (100 ms) as a whole.
pub const FIRST_WINDOW: Duration = Duration::from_millis(500);
/// Time between rounds of a live display, and so what its percentages are averaged over.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Descriptors of one container: six cgroup files and its first process.
const DESCRIPTORS: u64 = 7;
/// Descriptors left to everything else.
const SPARE: u64 = 64;
/// How long the kernel may go on giving the same time to two changes of a file: a few of its clock's interrupts.
const COARSE: Duration = Duration::from_millis(20);

/// Which containers to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsRequest {
    /// These, in this order, whatever their state; all that run when empty.
    pub containers: Vec<String>,
    /// Without names: those that do not run, too.
    pub all: bool,
}

/// One container in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStats {
    /// What it was asked for by; the first digits of its id when it was not asked for.
    pub reference: String,
    /// Its id.
    pub id: ContainerId,
    /// Its name; empty when its record cannot be read.
    pub name: String,
    /// What it uses; `None` when it does not run.
    pub reading: Option<Reading>,
}

/// What a running container uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// CPU time since the round before, or since it began when that is later, in per cent of one processor.
    pub cpu_percent: f64,
    /// Processors that are online on the host.
    pub online_cpus: u32,
    /// Memory in bytes, without page cache that nobody has used lately.
    pub memory: u64,
    /// Its limit in bytes: the cgroup's, or all there is.
    pub memory_limit: u64,
    /// Bytes its network devices have received; 0 on the host's network.
    pub received: u64,
    /// Bytes they have sent.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Reading {
    /// Memory in per cent of the limit.
    pub fn memory_percent(&self) -> f64 {
        if self.memory_limit == 0 { 0.0 } else { self.memory as f64 / self.memory_limit as f64 * 100.0 }
    }
}

/// All containers at (nearly) one moment.
#[derive(Debug, Default)]
pub struct Round {
    /// As they were asked for, else newest first.
    pub containers: Vec<ContainerStats>,
    /// What could not be read; a record that is damaged is told of once.
    pub problems: Vec<anyhow::Error>,
}

/// Watches containers.
#[derive(Debug)]
pub struct Monitor {
    engine: Engine,
    cgroups: Cgroups,
    /// What was asked for and which container it is; `None`: whichever there are.
    named: Option<Vec<(String, ContainerId)>>,
    all: bool,
    known: BTreeMap<ContainerId, Known>,
    round: u64,
    /// Containers whose descriptors may be held.
    room: usize,
    host: Host,
    /// Met since the last round.
    problems: Vec<anyhow::Error>,
}

/// What containers share.
#[derive(Debug, Clone, Copy)]
struct Host {
    online_cpus: u32,
    /// Bytes.
    memory: u64,
}

/// A container as it was when its record was last read.
#[derive(Debug, Default)]
struct Known {
    /// The round in which it was last met.
    met: u64,
    /// When its directory was last changed before its record was read; `None` when it has to be read again.
    stamp: Option<Duration>,
    name: String,
    created: Option<Timestamp>,
    /// Its record cannot be read, and that has been told.
    damaged: bool,
    run: Option<Run>,
}

/// A run of a container that had not ended when last looked at.
#[derive(Debug)]
struct Run {
    process: ProcessRef,
    /// On the first process; `None` when there are too many containers to hold one of each.
    handle: Option<OwnedFd>,
    meter: Meter,
    /// It has network devices of its own, or another container's.
    network: bool,
    /// When its CPU time was last read, and what it was.
    before: Sample,
    /// Of this round.
    reading: Option<Reading>,
}

/// CPU time at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Since boot.
    at: Duration,
    /// Nanoseconds.
    cpu: u64,
}

impl Engine {
    /// Begins to watch containers, and reads their CPU time for the first round to be compared with.
    ///
    /// # Errors
    /// Each name that no container has.
    pub fn stats(&self, request: &StatsRequest) -> Result<Monitor, Vec<anyhow::Error>> {
        let mut named: Vec<(String, ContainerId)> = Vec::new();
        let mut unknown = Vec::new();
        for reference in &request.containers {
            match handle::find(&self.layout, reference) {
                Ok(id) if !named.iter().any(|(known, _)| known == reference) => named.push((reference.clone(), id)),
                Ok(_) => {}
                Err(error) => unknown.push(error),
            }
        }
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let mut monitor = Monitor {
            engine: self.clone(),
            cgroups: Cgroups::detect().map_err(|error| vec![error])?,
            named: if request.containers.is_empty() { None } else { Some(named) },
            all: request.all,
            known: BTreeMap::new(),
            round: 0,
            room: room_for_descriptors(),
            host: Host { online_cpus: host::online_cpus(), memory: host::memory() },
            problems: Vec::new(),
        };
        monitor.refresh().map_err(|error| vec![error])?;
        for run in monitor.known.values_mut().filter_map(|known| known.run.as_mut()) {
            let at = clock::since_boot();
            // One that has ended, or cannot be read, is met again in the first round.
            if let Ok(Some(cpu)) = run.meter.cpu() {
                run.before = Sample { at, cpu };
            }
        }
        Ok(monitor)
    }
}

impl Monitor {
    /// Looks at all containers once. A container that has ended since it was listed is no error: it does not run.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub fn round(&mut self) -> Result<Round> {
        self.refresh()?;
        self.read();
        self.forget_ended();
        let row = |reference: &str, id: &ContainerId, known: &Known| ContainerStats {
            reference: reference.to_owned(),
            id: id.clone(),
            name: known.name.clone(),
            reading: known.run.as_ref().and_then(|run| run.reading),
        };
        let containers = match &self.named {
            Some(named) => {
                let known = named.iter().filter_map(|(reference, id)| Some((reference, id, self.known.get(id)?)));
                known.map(|(reference, id, known)| row(reference, id, known)).collect()
            }
            None => {
                let mut listed: Vec<_> = self.known.iter().collect();
                listed.retain(|(_, known)| self.all || known.run.is_some());
                listed.sort_by(|a, b| b.1.created.cmp(&a.1.created).then_with(|| a.0.cmp(b.0)));
                listed.into_iter().map(|(id, known)| row(id.short(), id, known)).collect()
            }
        };
        Ok(Round { containers, problems: std::mem::take(&mut self.problems) })
    }

    /// Makes `known` true: new containers, those that are gone, new runs, new names.
    fn refresh(&mut self) -> Result<()> {
        self.round += 1;
        let ids = match &self.named {
            Some(named) => named.iter().map(|(_, id)| id.clone()).collect(),
            None => handle::ids(&self.engine.layout)?,
        };
        let directory = self.engine.layout.containers();
        let containers = File::open(&directory).with_context(|| format!("list {}", directory.display()))?;
        let mut held = self.known.values().filter(|known| known.is_held()).count();
        for id in ids {
            let stamp = changed(&containers, &id);
            let known = self.known.get(&id);
            if stamp.is_some() && known.is_some_and(|known| known.stamp == stamp) {
                self.known.entry(id).and_modify(|known| known.met = self.round);
                continue;
            }
            let mut known = self.known.remove(&id).unwrap_or_default();
            held -= usize::from(known.is_held());
            match handle::load(&self.engine.layout, &id) {
                Ok(record) => {
                    let keep = if held < self.room { Descriptors::Hold } else { Descriptors::Release };
                    if let Err(error) = known.update(&record, &self.cgroups, keep) {
                        self.problems.push(error);
                    }
                }
                Err(error) if Failure::from_error(&error).class == Class::NotFound => {
                    known.run = None;
                    // Who was asked for by name keeps his place.
                    if self.named.is_none() {
                        continue;
                    }
                }
                Err(_) if self.engine.is_being_made(&id) => continue,
                Err(error) => {
                    if !known.damaged {
                        self.problems.push(error);
                    }
                    known = Known { damaged: true, ..Known::default() };
                }
            }
            held += usize::from(known.is_held());
            self.known.insert(id, Known { met: self.round, stamp, ..known });
        }
        self.known.retain(|_, known| known.met == self.round);
        Ok(())
    }

    /// Reads what each run uses; runs whose cgroup is gone have ended.
    fn read(&mut self) {
        for (id, known) in &mut self.known {
            let Some(run) = &mut known.run else { continue };
            match run.read(self.host) {
                Ok(None) => known.run = None,
                Ok(reading) => run.reading = reading,
                Err(error) => {
                    run.reading = None;
                    self.problems.push(error.context(format!("container {}", id.short())));
                }
            }
        }
    }

    /// Forgets runs whose first process has ended. Asked after reading: whoever lives now has had his number all
    /// along, so that nothing was read of a stranger.
    fn forget_ended(&mut self) {
        let handles = self.known.values().filter_map(|known| known.run.as_ref()?.handle.as_ref());
        let mut events: Vec<PollFd> = handles.map(|handle| PollFd::new(handle, PollFlags::IN)).collect();
        // One call for all; a handle is readable when its process has ended (pidfd_open(2)).
        let _ = poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let ended: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
        let mut ended = ended.into_iter();
        for known in self.known.values_mut() {
            let Some(run) = &known.run else { continue };
            let has_ended = match run.handle {
                Some(_) => ended.next().unwrap_or(true),
                None => process::start_time(run.process.pid) != Some(run.process.start_time),
            };
            if has_ended {
                known.run = None;
            }
        }
    }
}

impl Known {
    fn is_held(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.handle.is_some())
    }

    /// Takes over what a record says; a run that goes on keeps what has been read of it.
    fn update(&mut self, record: &Record, cgroups: &Cgroups, descriptors: Descriptors) -> Result<()> {
        self.name.clone_from(&record.config.name);
        self.created = Some(record.config.created);
        self.damaged = false;
        let last = record.state.init.filter(|_| record.state.status.is_live());
        if let (Some(run), Some(process)) = (&self.run, last)
            && run.process == process
        {
            return Ok(());
        }
        self.run = None;
        // The handle first and the start time after it: a number that has passed to a stranger is noticed.
        let held = last.filter(|_| descriptors == Descriptors::Hold).and_then(|process| Pid::from_raw(process.pid));
        let handle = held.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(process) = record.live_init() {
            self.run = Some(Run {
                process,
                handle,
                meter: resources::group(cgroups, &record.config)?.meter(descriptors),
                network: !matches!(record.config.namespaces.network, NetworkMode::Host | NetworkMode::None),
                before: Sample { at: clock::ticks(process.start_time), cpu: 0 },
                reading: None,
            });
        }
        Ok(())
    }
}

impl Run {
    /// What it uses; `None` when it has ended.
    fn read(&mut self, host: Host) -> Result<Option<Reading>> {
        let at = clock::since_boot();
        let Some(usage) = self.meter.usage()? else { return Ok(None) };
        let now = Sample { at, cpu: usage.cpu };
        let cpu_percent = cpu_percent(self.before, now);
        self.before = now;
        // A process that has just ended has no network any more; whether it has is asked afterwards.
        let traffic = if self.network { procfs::traffic(self.process.pid).ok() } else { None }.unwrap_or_default();
        Ok(Some(Reading {
            cpu_percent,
            online_cpus: host.online_cpus,
            memory: usage.memory_without_cache(),
            memory_limit: usage.memory_limit.unwrap_or(u64::MAX).min(host.memory),
            received: traffic.received,
            sent: traffic.sent,
            read: usage.read,
            written: usage.written,
            tasks: usage.tasks,
        }))
    }
}

/// CPU time used between two samples in per cent of one processor.
///
/// Docker divides by the CPU time of the whole system in between, as `/proc/stat` has it, and multiplies by the number
/// of processors. All processors together spend, idle or not, exactly that many times the time that passes, so the
/// number cancels out, and the clock is the finer measure: `/proc/stat` counts hundredths of a second, and leaves out
/// what a hypervisor took away.
fn cpu_percent(before: Sample, now: Sample) -> f64 {
    // Nothing shorter than the unit in which a start is told.
    let elapsed = now.at.saturating_sub(before.at).max(clock::TICK);
    now.cpu.saturating_sub(before.cpu) as f64 / elapsed.as_nanos() as f64 * 100.0
}

/// When a container's directory was last changed, in time since 1970. `None` when that may yet stand for a change to come: the
/// kernel's file times are as coarse as its clock's interrupts.
fn changed(containers: &File, id: &ContainerId) -> Option<Duration> {
    let stat = match statat(containers, id.as_str(), AtFlags::empty()) {
        Ok(stat) => stat,
        // It stays gone.
        Err(Errno::NOENT) => return Some(Duration::ZERO),
        Err(_) => return None,
    };
    let changed = Duration::new(u64::try_from(stat.st_mtime).ok()?, u32::try_from(stat.st_mtime_nsec).ok()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    (now.checked_sub(changed)? > COARSE).then_some(changed)
}

/// For how many containers descriptors may be held, after this process has been allowed as many as it may have.
fn room_for_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let room = allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(SPARE) / DESCRIPTORS);
    usize::try_from(room).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_processor_is_a_hundred_per_cent() {
        let sample = |milliseconds, cpu| Sample { at: Duration::from_millis(milliseconds), cpu };
        assert!((cpu_percent(sample(1000, 5_000_000), sample(1500, 505_000_000)) - 100.0).abs() < 1e-9);
        assert!((cpu_percent(sample(0, 0), sample(1000, 2_000_000_000)) - 200.0).abs() < 1e-9);
        assert!((cpu_percent(sample(0, 0), sample(1000, 1_234_000)) - 0.1234).abs() < 1e-9);
        // A new run's group begins at zero; a container that has just begun has used no more than it can have.
        assert_eq!(cpu_percent(sample(0, 9), sample(1000, 3)), 0.0);
        assert_eq!(cpu_percent(sample(1000, 0), sample(1000, 5_000_000)), 50.0);
    }

    #[test]
    fn a_directory_that_has_just_changed_is_looked_at_again() {
        let root = tempfile::tempdir().unwrap();
        let containers = File::open(root.path()).unwrap();
        let id = ContainerId::random().unwrap();
        let directory = root.path().join(id.as_str());
        std::fs::create_dir(&directory).unwrap();
        let stamp = || changed(&containers, &id);
        assert_eq!(stamp(), None);
        std::thread::sleep(COARSE + Duration::from_millis(10));
        let first = stamp();
        assert!(first.is_some() && stamp() == first);
        std::fs::write(directory.join("state.json"), "").unwrap();
        assert_ne!(stamp(), first);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(stamp(), Some(Duration::ZERO));
    }
}
