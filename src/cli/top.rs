//! `top`.

use super::output;
use super::spec::{self, Arity, Spec};
use super::table;

pub(super) static TOP: Spec = Spec {
    name: "top",
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    arity: Arity::at_least(1),
    // `-o pid` is for ps.
    raw_operands: true,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: |session, matches| {
        let mut operands = spec::operands(matches).into_iter();
        let reference = operands.next().unwrap_or_default();
        let table = session.engine()?.top(&reference, &operands.collect::<Vec<_>>())?;
        // A process may write anything over its arguments, escapes for the reader's terminal as well.
        let printable = |row: &Vec<String>| row.iter().map(|cell| output::printable(cell)).collect();
        let rows: Vec<Vec<String>> = std::iter::once(&table.titles).chain(&table.processes).map(printable).collect();
        output::print(&table::align_wide(&rows))?;
        Ok(0)
    },
};
