//! `why`: what is known of how a container ended, or of why it did not start. Facts only; the words
//! are the front end's.
//!
//! Three sources, each for what it knows best: the record (exit code, error, memory), the log of
//! events (who sent which signal, the runs before the last, containers that are gone), and the
//! container's own last words.

use std::cell::RefCell;
use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::{HealthView, exit_code, inspect};
use crate::container::handle::{self, Record};
use crate::container::status::Status;
use crate::container::{ContainerId, OomReport};
use crate::engine::Engine;
use crate::engine::events::{Event, EventsRequest, Kind};
use crate::engine::lifecycle::is_not_found;
use crate::engine::recover::{MACHINE_RESTARTED, SUPERVISOR_KILLED};
use crate::engine::request::LogsRequest;
use crate::sys::{process, signal};

/// Last lines of the log that are told.
const LINES: u64 = 10;
/// Most bytes of them; a line may be of any length.
const MAX_LOG: usize = 16 * 1024;
/// The status of a container that only the log of events remembers.
const REMOVED: &str = "removed";

/// What is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Why {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image, as the user named it.
    pub image: String,
    /// Entrypoint and command; empty when it is gone.
    pub command: Vec<String>,
    /// Docker's word, or `removed`.
    pub status: String,
    /// When it was made; `None` when nobody remembers.
    pub created: Option<Timestamp>,
    /// When the run began that goes on.
    pub running_since: Option<Timestamp>,
    /// Pid of its first process on the host, when it runs.
    pub pid: Option<i32>,
    /// When it was removed.
    pub removed: Option<Timestamp>,
    /// Times the restart policy has started it again.
    pub restart_count: u32,
    /// What is known of the want of memory in the last run, the one that goes on included.
    pub oom: Option<OomReport>,
    /// What is known of the health of the run that goes on.
    pub health: Option<HealthView>,
    /// The last end: of a container that runs, the one before.
    pub end: Option<End>,
    /// The last lines that were written before that end.
    pub log: Vec<String>,
}

/// The end of a run, or a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct End {
    /// When the run began; `None` when it did not.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The recorded exit code.
    pub exit_code: i32,
    /// What that means.
    pub cause: Cause,
    /// The signals that were sent to it through the engine, in their order; `None` when the log of
    /// events does not go back so far.
    pub signals: Option<Vec<SentSignal>>,
    /// It was `stop` or `restart` that sent them.
    pub stopped: bool,
}

/// A signal that the engine sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SentSignal {
    /// When.
    pub time: Timestamp,
    /// Its number.
    pub number: i32,
    /// Its name.
    pub name: String,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "Kind", rename_all = "kebab-case", rename_all_fields = "PascalCase")]
pub enum Cause {
    /// There was no run: the start failed.
    NotStarted {
        /// What went wrong.
        error: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// Nobody saw the end, because the container's supervisor was killed.
    SupervisorKilled,
    /// Nobody saw the end, because the machine went down.
    MachineRestarted,
    /// The kernel killed it, or a process in it, for want of memory.
    Memory,
    /// A signal ended it: code 128+n. Shells give this code when it was their last command.
    Signal {
        /// Its number.
        number: i32,
        /// Its name.
        name: String,
    },
    /// It ended by itself, with success.
    Success,
    /// It ended by itself, with a code of its own.
    Code,
}

impl Cause {
    /// The meaning of a code alone, when nothing else is known.
    fn of_code(code: i32) -> Cause {
        match code {
            0 => Cause::Success,
            129..=192 => Cause::Signal { number: code - 128, name: signal::name(code - 128) },
            _ => Cause::Code,
        }
    }

    /// The meaning of a code and the error recorded with it.
    fn of_end(code: i32, error: &str, hint: Option<&str>, memory: Memory) -> Cause {
        match error {
            SUPERVISOR_KILLED => Cause::SupervisorKilled,
            MACHINE_RESTARTED => Cause::MachineRestarted,
            "" if memory == Memory::Short && code != 0 => Cause::Memory,
            "" => Cause::of_code(code),
            error => Cause::NotStarted { error: error.to_owned(), hint: hint.map(str::to_owned) },
        }
    }
}

/// Whether the kernel killed for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Short,
    Enough,
}

impl From<bool> for Memory {
    fn from(short: bool) -> Memory {
        if short { Memory::Short } else { Memory::Enough }
    }
}

impl Engine {
    /// Says why a container ended or did not start, also of one that was removed, as far as the log of
    /// events remembers it.
    ///
    /// # Errors
    /// No such container; a damaged record.
    pub fn why(&self, reference: &str) -> Result<Why> {
        match handle::find(&self.layout, reference).and_then(|id| self.settled(&id)) {
            Ok(record) => Ok(self.why_of(&record)),
            Err(error) if is_not_found(&error) => self.why_removed(reference).ok_or(error),
            Err(error) => Err(error),
        }
    }

    fn why_of(&self, record: &Record) -> Why {
        let (config, state, status) = (&record.config, &record.state, record.status());
        let mut history = History::read(self, |event| event.id == config.id.as_str());
        let running = status.is_live();
        // The run that goes on has no end yet; the record may know of a start that the log has forgotten.
        if running && history.runs.last().is_some_and(|run| run.ended.is_none()) {
            history.runs.pop();
        }
        // A run that began before the last recorded start is an earlier one: the log was lost meanwhile.
        let is_of_record = |run: &Run| running || run.started.is_none_or(|began| Some(began) >= state.started);
        let last = history.runs.pop().filter(is_of_record);
        let end = match status {
            _ if running => last.map(Run::into_end),
            Status::Created if state.error.is_empty() => None,
            _ => Some(recorded_end(record, last.unwrap_or_default())),
        };
        Why {
            id: config.id.to_string(),
            name: config.name.clone(),
            image: config.image.name.clone(),
            command: config.process.entrypoint.iter().chain(&config.process.command).cloned().collect(),
            status: status.as_str().to_owned(),
            created: Some(config.created),
            running_since: state.started.filter(|_| running),
            pid: record.live_init().map(|init| init.pid),
            removed: None,
            restart_count: state.restart_count,
            oom: state.oom.clone(),
            health: if running { inspect::health_view(&self.layout, record) } else { None },
            log: end.as_ref().map(|end| self.last_words(&config.id, end)).unwrap_or_default(),
            end,
        }
    }

    /// A container that is gone: by its name, its id or the first digits of it.
    fn why_removed(&self, reference: &str) -> Option<Why> {
        let reference = reference.strip_prefix('/').unwrap_or(reference);
        let mut id = None;
        self.past_events(&mut |event| {
            let named = event.attributes.get("name").is_some_and(|name| name == reference);
            let numbered = reference.len() >= 4 && event.id.starts_with(reference);
            if event.kind == Kind::Container && event.action == "destroy" && (named || numbered) {
                id = Some(event.id.clone());
            }
        });
        let id = id?;
        let mut history = History::read(self, |event| event.id == id);
        let attribute = |key| history.latest.as_ref().and_then(|event| event.attributes.get(key)).cloned();
        Some(Why {
            name: attribute("name").unwrap_or_default(),
            image: attribute("image").unwrap_or_default(),
            id,
            command: Vec::new(),
            status: REMOVED.to_owned(),
            created: history.created,
            running_since: None,
            pid: None,
            removed: history.removed,
            restart_count: 0,
            oom: None,
            health: None,
            end: history.runs.pop().map(Run::into_end),
            log: Vec::new(),
        })
    }

    /// What has happened so far. A log that cannot be read is as good as none.
    fn past_events(&self, receive: &mut dyn FnMut(&Event)) {
        let request = EventsRequest { since: None, until: Some(Timestamp::now()), filters: Vec::new() };
        let read = self.events(&request, &mut |event| {
            receive(event);
            Ok(())
        });
        if let Err(error) = read {
            tracing::debug!("{error:#}");
        }
    }

    /// The last lines written before `end`.
    fn last_words(&self, id: &ContainerId, end: &End) -> Vec<String> {
        let Some(since) = end.started else { return Vec::new() };
        let request = LogsRequest {
            tail: Some(LINES),
            since: Some(since),
            until: end.finished,
            stdout: true,
            stderr: true,
            ..LogsRequest::default()
        };
        let kept = RefCell::new(Vec::new());
        // A container without a log that can be read has no last words.
        if let Err(error) = self.logs(id.as_str(), &request, &mut Tail(&kept), &mut Tail(&kept)) {
            tracing::debug!("{error:#}");
        }
        String::from_utf8_lossy(&kept.into_inner()).lines().map(str::to_owned).collect()
    }
}

/// The last end as the record tells it, with what the log of events knows of the same run.
fn recorded_end(record: &Record, run: Run) -> End {
    let state = &record.state;
    let code = exit_code(record);
    let short = state.oom_killed || state.oom.as_ref().is_some_and(|oom| oom.kills > 0);
    // Dead, and nobody has come to record that.
    let unrecorded = state.status.is_live();
    let cause = match unrecorded {
        true if state.boot_id != process::boot_id() => Cause::MachineRestarted,
        true => Cause::SupervisorKilled,
        false => Cause::of_end(code, &state.error, state.hint.as_deref(), short.into()),
    };
    let ran = !matches!(cause, Cause::NotStarted { .. });
    End {
        started: state.started.filter(|_| ran),
        finished: state.finished.filter(|_| !unrecorded).or(run.ended.map(|(time, _)| time)),
        exit_code: code,
        cause,
        signals: run.signals.filter(|_| ran),
        stopped: run.stopped,
    }
}

/// What the log of events tells about one container.
#[derive(Default)]
struct History {
    created: Option<Timestamp>,
    /// In their order; the last may have no end.
    runs: Vec<Run>,
    removed: Option<Timestamp>,
    latest: Option<Event>,
}

/// From a `start` to a `die`.
#[derive(Default)]
struct Run {
    started: Option<Timestamp>,
    /// When, and with which code.
    ended: Option<(Timestamp, i32)>,
    error: String,
    /// `None` when the beginning of the run is not remembered.
    signals: Option<Vec<SentSignal>>,
    oom: bool,
    stopped: bool,
}

impl History {
    fn read(engine: &Engine, belongs: impl Fn(&Event) -> bool) -> History {
        let mut history = History::default();
        engine.past_events(&mut |event| {
            if event.kind == Kind::Container && belongs(event) {
                history.add(event);
            }
        });
        history
    }

    fn add(&mut self, event: &Event) {
        let number = |key: &str| event.attributes.get(key).and_then(|text| text.parse::<i32>().ok());
        match event.action.as_str() {
            "create" => self.created = Some(event.time),
            "destroy" => self.removed = Some(event.time),
            "start" => self.runs.push(Run { started: Some(event.time), signals: Some(Vec::new()), ..Run::default() }),
            "kill" => {
                if let (Some(number), Some(signals)) =
                    (number("signal"), self.open_run().and_then(|run| run.signals.as_mut()))
                {
                    signals.push(SentSignal { time: event.time, number, name: signal::name(number) });
                }
            }
            "oom" => self.open_run().into_iter().for_each(|run| run.oom = true),
            "die" => {
                if self.open_run().is_none() {
                    // A start that failed, or one from before what is remembered.
                    self.runs.push(Run::default());
                }
                if let Some(run) = self.runs.last_mut() {
                    run.ended = Some((event.time, number("exitCode").unwrap_or_default()));
                    run.error = event.attributes.get("error").cloned().unwrap_or_default();
                }
            }
            // Told after the end that it brought about.
            "stop" => self.runs.last_mut().into_iter().for_each(|run| run.stopped = true),
            _ => {}
        }
        self.latest = Some(event.clone());
    }

    fn open_run(&mut self) -> Option<&mut Run> {
        self.runs.last_mut().filter(|run| run.ended.is_none())
    }
}

impl Run {
    /// The end as far as the log of events knows it.
    fn into_end(self) -> End {
        let (finished, code) = self.ended.map_or((None, 0), |(time, code)| (Some(time), code));
        End {
            started: self.started,
            finished,
            exit_code: code,
            cause: Cause::of_end(code, &self.error, None, self.oom.into()),
            signals: self.signals,
            stopped: self.stopped,
        }
    }
}

/// A writer that keeps the last [`MAX_LOG`] bytes of two streams in the order they come.
struct Tail<'a>(&'a RefCell<Vec<u8>>);

impl Write for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.borrow_mut();
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(MAX_LOG);
        kept.drain(..surplus);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
