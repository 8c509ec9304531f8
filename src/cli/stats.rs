//! `stats`.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use clap::ArgMatches;

use super::output::{self, Codes};
use super::spec::{self, Arity, Spec};
use super::template::{self, Format, Row};
use super::{Session, quantity, screen};
use crate::engine::query::{ContainerStats, FIRST_WINDOW, INTERVAL, Reading, StatsRequest};

pub(super) static STATS: Spec = Spec {
    name: "stats",
    usage: "[OPTIONS] [CONTAINER...]",
    about: "Display a live stream of container(s) resource usage statistics",
    arity: Arity::any(),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::switch("all", Some('a'), "Show all containers (default shows just running)"))
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch(
                "no-stream",
                None,
                "Disable streaming stats and only pull the first result (it takes half a second)",
            ))
            .arg(spec::switch("no-trunc", None, "Do not truncate output"))
    },
    run: stats,
};

const HEADERS: &[(&str, &str)] = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("OnlineCPUs", "ONLINE CPUS"),
];

const TABLE: &str =
    "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

fn stats(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let once = spec::is_set(matches, "no-stream");
    let request = StatsRequest { containers: spec::operands(matches), all: spec::is_set(matches, "all") };
    let format = Format::parse(spec::text(matches, "format").as_deref(), TABLE);
    let shorten = !spec::is_set(matches, "no-trunc");
    // Before anything is waited for: a wrong template is an error at once.
    template::render(&format, HEADERS, &[])?;
    let mut monitor = match session.engine()?.stats(&request) {
        Ok(monitor) => monitor,
        Err(unknown) => {
            return Ok(unknown.iter().map(|error| output::fail(error, "", Codes::Plain)).max().unwrap_or(1));
        }
    };
    let mut next = Instant::now() + FIRST_WINDOW;
    // Nothing has to be put back when this is interrupted, so SIGINT has its usual effect: exit code 130.
    loop {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let round = monitor.round()?;
        // From one reading to the next, however long showing takes.
        next = Instant::now() + INTERVAL;
        let rows: Vec<Row> = round.containers.iter().map(|container| row(container, shorten)).collect();
        let text = template::render(&format, HEADERS, &rows)?;
        if once {
            output::print(&text)?;
        } else {
            screen::show(&text)?;
        }
        for problem in &round.problems {
            output::fail(problem, "", Codes::Plain);
        }
        if once {
            return Ok(0);
        }
    }
}

/// A container's row; what cannot be known of one that does not run is dashes, as in Docker.
fn row(container: &ContainerStats, shorten: bool) -> Row {
    let id = if shorten { container.id.short() } else { container.id.as_str() };
    let shown = |single: &str, text: &dyn Fn(&Reading) -> String| {
        container.reading.as_ref().map_or_else(|| single.to_owned(), text)
    };
    let bytes = |a: u64, b: u64| format!("{} / {}", quantity::human_size(a), quantity::human_size(b));
    let memory =
        |r: &Reading| format!("{} / {}", quantity::human_memory(r.memory), quantity::human_memory(r.memory_limit));
    Row::default()
        .with("Container", container.reference.as_str())
        .with("ID", id)
        .with("Name", if container.name.is_empty() { "--" } else { container.name.as_str() })
        .with("CPUPerc", shown("--", &|r| format!("{:.2}%", r.cpu_percent)))
        .with("MemUsage", shown("-- / --", &memory))
        .with("MemPerc", shown("--", &|r| format!("{:.2}%", r.memory_percent())))
        .with("NetIO", shown("--", &|r| bytes(r.received, r.sent)))
        .with("BlockIO", shown("--", &|r| bytes(r.read, r.written)))
        .with("PIDs", shown("--", &|r| r.tasks.to_string()))
        .with("OnlineCPUs", shown("--", &|r| r.online_cpus.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ContainerId;

    fn shown(reading: Option<Reading>, format: &str) -> String {
        let id = ContainerId::parse(&"0123456789abcdef".repeat(4)).unwrap();
        let container = ContainerStats { reference: "web".into(), id, name: "web-1".into(), reading };
        template::render(&Format::parse(Some(format), TABLE), HEADERS, &[row(&container, true)]).unwrap()
    }

    const READING: Reading = Reading {
        cpu_percent: 123.456,
        online_cpus: 2,
        memory: 1_572_864,
        memory_limit: 8_324_415_488,
        received: 1200,
        sent: 3400,
        read: 0,
        written: 147_000,
        tasks: 3,
    };

    #[test]
    fn the_table_is_dockers() {
        assert_eq!(
            shown(Some(READING), "table"),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O         BLOCK I/O    PIDS\n\
             0123456789ab   web-1     123.46%   1.5MiB / 7.753GiB   0.02%     1.2kB / 3.4kB   0B / 147kB   3\n"
        );
        assert!(shown(None, "table").ends_with(
            "\n0123456789ab   web-1     --        -- / --             --        --        --          --\n"
        ));
    }

    #[test]
    fn json_has_dockers_fields_and_the_number_of_processors() {
        assert_eq!(
            shown(Some(READING), "json"),
            "{\"BlockIO\":\"0B / 147kB\",\"CPUPerc\":\"123.46%\",\"Container\":\"web\",\"ID\":\"0123456789ab\",\
             \"MemPerc\":\"0.02%\",\"MemUsage\":\"1.5MiB / 7.753GiB\",\"Name\":\"web-1\",\"NetIO\":\"1.2kB / 3.4kB\",\
             \"OnlineCPUs\":\"2\",\"PIDs\":\"3\"}\n"
        );
        assert_eq!(shown(None, "{{.Container}} {{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"), "web -- -- / -- --\n");
    }
}
