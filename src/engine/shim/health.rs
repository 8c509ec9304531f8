//! The health of a run: when it is checked, and what is made of the results. The checks themselves are
//! processes of their own ([`super::probe`]); here they are one more descriptor of the loop, and one more time
//! at which it wakes up.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::probe::{Probe, Word};
use crate::container::health::MAX_OUTPUT;
use crate::container::status::Status;
use crate::container::{Config, ContainerId, HealthCheck, HealthReport, HealthResult, ProcessRef, handle};
use crate::engine::Engine;
use crate::engine::events::Action;
use crate::sys::channel::Received;
use crate::sys::process;

/// What a probe may take beyond the command's time, before it is killed: to get into the container, and out.
const GRACE: Duration = Duration::from_secs(30);

/// The health of one run.
pub(super) struct Health {
    check: HealthCheck,
    report: HealthReport,
    began: Instant,
    turn: Turn,
    /// When to do something though nothing was heard.
    deadline: Instant,
}

/// What goes on.
enum Turn {
    /// Nothing until the next check.
    Rest,
    /// A check.
    Check { probe: Probe, began: Began, output: String },
    /// A check has its result, but its process has not gone. Another one would only add to what hangs.
    Wait { probe: Probe },
}

/// When a check began, for people and for the start period.
#[derive(Clone, Copy)]
struct Began {
    time: Timestamp,
    since_start: Duration,
}

impl Health {
    /// Begins to watch over a run; `None` when nothing is to be checked.
    pub(super) fn watch(config: &Config, run: Option<ProcessRef>) -> Option<Health> {
        let check = config.health.as_ref()?;
        check.command(&config.process.shell)?;
        // The command is read anew for each check, by the probe.
        let check = HealthCheck { test: Vec::new(), ..check.clone() };
        let began = Instant::now();
        let report = HealthReport::new(run?);
        let deadline = began + check.pause(report.status, Duration::ZERO);
        Some(Health { check, report, began, turn: Turn::Rest, deadline })
    }

    /// What to poll for now.
    pub(super) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        match &self.turn {
            Turn::Rest => None,
            Turn::Check { probe, .. } | Turn::Wait { probe } => Some(probe.channel.as_fd()),
        }
    }

    /// When to [`Health::expire`].
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Hears the probe out.
    pub(super) fn hear(&mut self, engine: &Engine, id: &ContainerId) {
        let probe = match &self.turn {
            Turn::Rest => return,
            Turn::Check { probe, .. } | Turn::Wait { probe } => probe,
        };
        let heard = probe.channel.receive::<Word>();
        let gone = matches!(heard, Ok(Received::Closed) | Err(_));
        match (std::mem::replace(&mut self.turn, Turn::Rest), heard) {
            (Turn::Check { probe, began, mut output }, Ok(Received::Message(Word::Output(piece), _))) => {
                // As many bytes as text can become that is none.
                if output.len() + piece.len() <= 4 * MAX_OUTPUT {
                    output.push_str(&piece);
                }
                self.turn = Turn::Check { probe, began, output };
            }
            (Turn::Check { probe, began, output }, Ok(Received::Message(Word::Ended { exit_code, time }, _))) => {
                let result = HealthResult { start: began.time, end: time, exit_code, output };
                self.note(engine, id, result, began.since_start);
                self.turn = Turn::Wait { probe };
            }
            (Turn::Check { probe, .. }, Ok(Received::Message(Word::Nothing, _))) => {
                self.rest();
                self.turn = Turn::Wait { probe };
            }
            // Killed, or it talks nonsense.
            (Turn::Check { began, .. }, _) if gone => {
                self.fail(engine, id, began, "the process that ran the health check was killed".to_owned());
            }
            // The time of the next check is set; what is left of the last one has gone.
            (Turn::Wait { .. }, _) if gone => {}
            (turn, _) => self.turn = turn,
        }
        if gone {
            // Until the next check; a fork and a result touch a good deal.
            process::trim_memory();
        }
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, engine: &Engine, id: &ContainerId) {
        let began = Began { time: Timestamp::now(), since_start: self.began.elapsed() };
        match &self.turn {
            Turn::Rest => match Probe::begin(engine, id, self.report.run) {
                Ok(probe) => {
                    self.turn = Turn::Check { probe, began, output: String::new() };
                    self.deadline = Instant::now() + self.check.timeout() + GRACE;
                }
                Err(error) => self.fail(engine, id, began, format!("start the health check: {error}")),
            },
            // What is frozen does not end, and what is about to enter a frozen container stands still with it.
            Turn::Check { .. } | Turn::Wait { .. } if is_paused(engine, id) => self.rest(),
            Turn::Check { probe, .. } => {
                // That it has gone is heard.
                probe.kill();
                self.deadline = Instant::now() + GRACE;
            }
            Turn::Wait { .. } => {
                self.fail(engine, id, began, "the last health check was killed and has not ended yet".to_owned());
            }
        }
    }

    /// Notes a check that has failed without a command that could say so.
    fn fail(&mut self, engine: &Engine, id: &ContainerId, began: Began, output: String) {
        let result = HealthResult { start: began.time, end: Timestamp::now(), exit_code: -1, output };
        self.note(engine, id, result, began.since_start);
    }

    /// Takes in a result, writes it down, tells whom it may concern, and rests.
    fn note(&mut self, engine: &Engine, id: &ContainerId, result: HealthResult, since_start: Duration) {
        let changed = self.report.note(&self.check, result, since_start);
        // A full disk cannot be told to anybody here. The next result is written with this one.
        let _ = self.report.save(engine.layout(), id);
        if changed {
            engine.note_by_id(id, Action::Health(self.report.status));
        }
        self.rest();
    }

    fn rest(&mut self) {
        self.deadline = Instant::now() + self.check.pause(self.report.status, self.began.elapsed());
    }
}

fn is_paused(engine: &Engine, id: &ContainerId) -> bool {
    handle::load(engine.layout(), id).is_ok_and(|record| record.state.status == Status::Paused)
}
