//! How a transfer looks: a bar per layer on a terminal, a line per step elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::engine::images::transfer::LineEnd;
use crate::image::oci::digest::Digest;
use crate::image::transfer::progress::{Progress, Step};

/// Which way layers go; the words differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From a registry.
    In,
    /// To a registry.
    Out,
}

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Standard output: the transfer is what the command is for.
    Output,
    /// Standard error: the command's output belongs to the container.
    Error,
}

/// Shows how a transfer goes.
pub(super) struct Display {
    way: Way,
    place: Place,
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<Digest, Shown>>,
    /// As long as there are bars: whoever interrupts us gets their prompt on a line of its own.
    line_end: Mutex<Option<LineEnd>>,
}

/// What is seen of one layer.
struct Shown {
    /// How many layers had been spoken of before.
    place: usize,
    bar: Option<ProgressBar>,
    said: String,
}

/// Times a second that bars are drawn: enough for the eye, nothing for the processor.
const DRAWS: u8 = 10;

impl Display {
    pub(super) fn new(way: Way, place: Place) -> Display {
        let terminal = match place {
            Place::Output => io::stdout().is_terminal(),
            Place::Error => io::stderr().is_terminal(),
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let target = match place {
            Place::Output => ProgressDrawTarget::stdout_with_hz(DRAWS),
            Place::Error => ProgressDrawTarget::stderr_with_hz(DRAWS),
        };
        let bars = (terminal && !dumb).then(|| MultiProgress::with_draw_target(target));
        Display { way, place, bars, layers: Mutex::default(), line_end: Mutex::default() }
    }

    /// A new bar below the others.
    fn bar(&self, bars: &MultiProgress, short: &str, words: &str) -> ProgressBar {
        self.line_end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| match self.place {
            Place::Output => LineEnd::at(io::stdout().as_fd()),
            Place::Error => LineEnd::at(io::stderr().as_fd()),
        });
        // Complete before it is drawn for the first time.
        let bar = ProgressBar::new(0).with_style(plain()).with_prefix(short.to_owned());
        bars.add(bar.with_message(output::printable(words)))
    }

    /// One line that stays.
    fn say(&self, text: &str) {
        let text = output::printable(text);
        match self.place {
            // A reader that is gone does not stop the transfer.
            Place::Output => drop(output::print_line(&text)),
            Place::Error => output::complain(&format!("{text}\n")),
        }
    }

    fn words(&self, step: &Step) -> String {
        let inward = self.way == Way::In;
        match step {
            Step::Pending if inward => "Pulling fs layer".into(),
            Step::Pending => "Preparing".into(),
            Step::Exists if inward => "Already exists".into(),
            Step::Exists => "Layer already exists".into(),
            Step::Waiting => "Waiting for another process that pulls it".into(),
            Step::Bytes { .. } if inward => "Downloading".into(),
            Step::Bytes { .. } => "Pushing".into(),
            Step::Finishing if inward => "Extracting".into(),
            Step::Finishing => "Compressing".into(),
            Step::Retrying { seconds, reason } => format!("Retrying in {seconds} seconds: {reason}"),
            Step::Mounted { from } => format!("Mounted from {from}"),
            Step::Done if inward => "Pull complete".into(),
            Step::Done => "Pushed".into(),
        }
    }
}

/// Takes all layers, with what was said last of each, in the order in which they were first spoken of.
fn in_order(layers: &mut HashMap<Digest, Shown>) -> Vec<(String, String)> {
    let mut shown: Vec<Shown> = layers.drain().map(|(_, shown)| shown).collect();
    shown.sort_by_key(|shown| shown.place);
    shown.into_iter().filter_map(|shown| Some((shown.bar?.prefix(), shown.said))).collect()
}

/// Whether a step is worth a line where lines stay. Bytes are not.
fn lasting(step: &Step) -> bool {
    !matches!(step, Step::Bytes { .. } | Step::Finishing)
}

impl Progress for Display {
    fn layer(&self, layer: &Digest, step: Step) {
        let short = &layer.hex()[..12];
        let words = self.words(&step);
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let place = layers.len();
        let shown = layers.entry(layer.clone()).or_insert_with(|| Shown {
            place,
            bar: self.bars.as_ref().map(|bars| self.bar(bars, short, &words)),
            said: String::new(),
        });
        let Some(bar) = &shown.bar else {
            if lasting(&step) && shown.said != words {
                shown.said.clone_from(&words);
                drop(layers);
                self.say(&format!("{short}: {words}"));
            }
            return;
        };
        // The words first: whatever is drawn with the numbers fits them.
        let is_new = shown.said != words;
        if is_new {
            bar.set_message(output::printable(&words));
            shown.said = words;
        }
        match step {
            Step::Bytes { done, total } => {
                if is_new {
                    bar.set_style(counting());
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
            _ if is_new => bar.set_style(plain()),
            _ => {}
        }
        if matches!(step, Step::Exists | Step::Mounted { .. } | Step::Done) {
            bar.abandon();
        }
    }

    fn line(&self, text: &str) {
        // A line about the whole ends what was said of layers: in the place of their bars it stays as text.
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bars) = &self.bars
            && !layers.is_empty()
        {
            // One that is dropped before its end would draw all others once more.
            layers.values().filter_map(|shown| shown.bar.as_ref()).for_each(ProgressBar::abandon);
            let _ = bars.clear();
            for (layer, said) in in_order(&mut layers) {
                self.say(&format!("{layer}: {said}"));
            }
        }
        drop(layers);
        *self.line_end.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.say(text);
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Within 80 columns, whatever the numbers: a longer line would take two.
fn counting() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg} [{bar:22}] {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
