//! `image inspect`.

use clap::Command;

use crate::cli::inspect::{Kind, inspect};
use crate::cli::spec::{self, Arity, Spec};

pub(in crate::cli) static INSPECT: Spec = Spec {
    name: "inspect",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Display detailed information on one or more images",
    arity: Arity::at_least(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags,
    run: |session, matches| inspect(session, matches, &[Kind::Image]),
};

fn flags(command: Command) -> Command {
    command.arg(spec::value("format", Some('f'), "string", "Format output: 'json' or a Go template")).arg(spec::value(
        "platform",
        None,
        "string",
        "Fail if the image is for another platform (os[/arch[/variant]])",
    ))
}
