//! `--explain`: the steps of a start with their times, or the step that failed.
//!
//! Steps in this process are tracing spans, collected here; those of the shim and of init come with
//! the engine's answer. All carry the same monotonic clock.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::{output, table};
use crate::engine::supervise::{TimedStep, monotonic_micros};

/// The spans of this process that have closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Collector(Arc<Mutex<Vec<TimedStep>>>);

/// When a span began, microseconds.
struct Began(u64);

impl Collector {
    /// Collects every span of this process from now on.
    pub(super) fn install() -> Collector {
        let collector = Collector::default();
        let subscriber = tracing_subscriber::registry().with(collector.clone());
        // With --debug there is one already; then the steps of this process are in its output.
        let _ = tracing::subscriber::set_global_default(subscriber);
        collector
    }

    /// All steps in the order of their beginning.
    pub(super) fn merge(&self, others: Vec<TimedStep>) -> Vec<TimedStep> {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        steps.extend(others);
        steps.sort_by_key(|step| step.at);
        let start = steps.first().map_or(0, |step| step.at);
        for step in &mut steps {
            step.at -= start;
        }
        steps
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Began(monotonic_micros()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(&Began(at)) = span.extensions().get::<Began>() else { return };
        let took = monotonic_micros().saturating_sub(at);
        let step = TimedStep { process: "mydocker".into(), step: span.name().into(), at, took, failed: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

/// The steps as a table for people.
pub(super) fn as_table(timeline: &[TimedStep]) -> String {
    let milliseconds = |micros: u64| format!("{:.3} ms", micros as f64 / 1000.0);
    let mut rows = vec![["PROCESS", "STEP", "AT", "TOOK"].map(str::to_owned).to_vec()];
    for step in timeline {
        let took = match &step.failed {
            Some((call, errno)) if !call.is_empty() => format!("FAILED: {call}: {}", errno_name(*errno)),
            Some(_) => "FAILED".to_owned(),
            None => milliseconds(step.took),
        };
        rows.push(vec![output::printable(&step.process), output::printable(&step.step), milliseconds(step.at), took]);
    }
    let end = timeline.iter().map(|step| step.at.saturating_add(step.took)).max().unwrap_or(0);
    rows.push(vec!["total".to_owned(), String::new(), milliseconds(end), String::new()]);
    table::align(&rows)
}

/// `ENOENT` and the like (errno(3)).
fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}
