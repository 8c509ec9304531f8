//! `login`, `logout`, `search`.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context, Result};
use clap::ArgMatches;

use super::output::{self, Refusal};
use super::spec::{self, Arity, Spec};
use super::template::{self, Format, Row};
use super::{Session, quantity};
use crate::engine::registry::{self, Found, Login, MAX_SECRET, Secret};
use crate::error::Failure;

pub(super) static LOGIN: Spec = Spec {
    name: "login",
    usage: "[OPTIONS] [SERVER]",
    about: "Authenticate to a registry; to docker.io where no SERVER is given",
    arity: Arity::at_most(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value("password", Some('p'), "string", "Password or personal access token"))
            .arg(spec::switch("password-stdin", None, "Take the password from stdin"))
            .arg(spec::value("username", Some('u'), "string", "Username"))
    },
    run: login,
};

pub(super) static LOGOUT: Spec = Spec {
    name: "logout",
    usage: "[SERVER]",
    about: "Log out from a registry; from docker.io where no SERVER is given",
    arity: Arity::at_most(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| command,
    run: logout,
};

pub(super) static SEARCH: Spec = Spec {
    name: "search",
    usage: "[OPTIONS] TERM",
    about: "Search a registry for images: TERM on docker.io, or HOST/TERM",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: search_flags,
    run: |_, matches| search(None, matches),
};

pub(super) static IMAGE_SEARCH: Spec = Spec {
    name: "search",
    usage: "[OPTIONS] TERM",
    about: "Search local images, then a registry: TERM on docker.io, or HOST/TERM",
    arity: Arity::exactly(1),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: search_flags,
    run: |session, matches| search(Some(session), matches),
};

fn login(_: &Session, matches: &ArgMatches) -> Result<i32> {
    let operand = spec::operands(matches).into_iter().next();
    let server = registry::server(operand.as_deref())?;
    let mut user = spec::text(matches, "username").filter(|user| !user.is_empty());
    let mut secret = spec::text(matches, "password").filter(|secret| !secret.is_empty());
    if secret.is_some() {
        output::complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    }
    if spec::is_set(matches, "password-stdin") {
        if secret.is_some() {
            return Err(Refusal::plain("--password and --password-stdin are mutually exclusive").into());
        }
        if user.is_none() {
            return Err(Refusal::plain("Must provide --username with --password-stdin").into());
        }
        secret = Some(secret_from_stdin()?);
    }
    if user.is_none() && secret.is_none() {
        match registry::log_in_again(&server)? {
            Some(Ok(())) => {
                output::print_line("Authenticating with existing credentials...")?;
                return succeed();
            }
            Some(Err(error)) if !io::stdin().is_terminal() => return Err(error),
            // Somebody is there to be asked for better ones.
            Some(Err(error)) => output::warn(&format!("the credentials that are kept do not work: {error}")),
            None => {}
        }
    }
    if user.is_none() {
        user = Some(ask_user(&server)?);
    }
    if secret.is_none() {
        secret = Some(ask_secret()?);
    }
    let login = Login { server, user: user.unwrap_or_default(), secret: secret.unwrap_or_default() };
    if let Some(file) = registry::log_in(&login)? {
        output::complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n\n",
            output::printable(&file)
        ));
    }
    succeed()
}

fn succeed() -> Result<i32> {
    output::print_line("Login Succeeded")?;
    Ok(0)
}

fn not_interactive() -> anyhow::Error {
    Refusal::plain("Error: Cannot perform an interactive login from a non TTY device").into()
}

fn ask_user(server: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(not_interactive());
    }
    let known = registry::user_at(server);
    let offer = known.as_ref().map(|user| format!(" ({})", output::printable(user))).unwrap_or_default();
    output::complain(&format!("Username{offer}: "));
    let mut line = String::new();
    io::stdin().lock().take(MAX_SECRET as u64).read_line(&mut line).context("read the terminal")?;
    match (line.trim(), known) {
        ("", Some(known)) => Ok(known),
        ("", None) => Err(Refusal::plain("username is required").into()),
        (user, _) => Ok(user.to_owned()),
    }
}

fn ask_secret() -> Result<String> {
    if !io::stdin().is_terminal() {
        return Err(not_interactive());
    }
    // Asked for only once it would not be seen: some are quick.
    let secret = registry::read_secret(|| output::complain("Password: "));
    output::complain("\n");
    match secret? {
        Secret::Line(line) if line.is_empty() => Err(Refusal::plain("password is required").into()),
        Secret::Line(line) => text_of(line),
        Secret::Interrupted => Err(Refusal { message: "login cancelled".into(), help: None, code: 130 }.into()),
        Secret::NoTerminal => Err(not_interactive()),
    }
}

fn secret_from_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes).context("read standard input")?;
    if bytes.len() > MAX_SECRET {
        return Err(Refusal::plain("the password on standard input is too long").into());
    }
    // One line end, of which shells add one.
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    match bytes.is_empty() {
        true => Err(Refusal::plain("password is required: standard input is empty").into()),
        false => text_of(bytes),
    }
}

fn text_of(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Refusal::plain("the password is not valid UTF-8").into())
}

fn logout(_: &Session, matches: &ArgMatches) -> Result<i32> {
    let operand = spec::operands(matches).into_iter().next();
    let server = registry::server(operand.as_deref())?;
    // Docker's name for its own.
    let shown = if server == "docker.io" { "https://index.docker.io/v1/" } else { &server };
    match registry::log_out(&server)? {
        true => output::print_line(&format!("Removing login credentials for {}", output::printable(shown)))?,
        false => output::print_line(&format!("Not logged in to {}", output::printable(shown)))?,
    }
    Ok(0)
}

fn search_flags(command: clap::Command) -> clap::Command {
    command
        .arg(spec::list("filter", Some('f'), "filter", "Filter output: is-official=true, is-automated=true, stars=N"))
        .arg(spec::value("format", None, "string", "Format output: 'table', 'table TEMPLATE', 'json' or a Go template"))
        .arg(spec::value("limit", None, "int", "Max number of search results (default 25)"))
        .arg(spec::switch("no-trunc", None, "Don't truncate output"))
}

const HEADERS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
    ("Source", "SOURCE"),
];
const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const TABLE_WITH_SOURCE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}\t{{.Source}}";
/// Characters of a description, as Docker cuts it.
const SHOWN: usize = 45;

/// `search`, and with a session for the local images `image search`.
fn search(local: Option<&Session>, matches: &ArgMatches) -> Result<i32> {
    let term = spec::operands(matches).into_iter().next().unwrap_or_default();
    let limit = match spec::integer::<usize>(matches, "limit")?.unwrap_or(0) {
        0 => 25,
        limit @ 1..=100 => limit,
        limit => return Err(Failure::usage(format!("limit {limit} is outside the range of [1, 100]")).into()),
    };
    let filters = spec::texts(matches, "filter").iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let whole = spec::is_set(matches, "no-trunc");
    let default = if local.is_some() { TABLE_WITH_SOURCE } else { TABLE };
    let format = Format::parse(spec::text(matches, "format").as_deref(), default);
    let mut rows = Vec::new();
    if let Some(session) = local {
        for (name, id, size) in session.engine()?.search_local(&term)? {
            let id = id.trim_start_matches("sha256:");
            let id = if whole { id } else { id.get(..12).unwrap_or(id) };
            let description = format!("image {id}, {}", quantity::human_size(size));
            let found = Found { name, description, stars: 0, official: false, automated: false };
            if filters.iter().all(|filter| filter.accepts(&found)) {
                rows.push(row(&found, "local", whole));
            }
        }
    }
    match registry::search(&term, limit) {
        Ok(found) => {
            let wanted = found.iter().filter(|found| filters.iter().all(|filter| filter.accepts(found)));
            rows.extend(wanted.map(|found| row(found, "registry", whole)));
        }
        // What is here was asked for as well, and is shown.
        Err(error) if local.is_some() => {
            output::warn(&format!("no registry was searched: {}", Failure::from_error(&error)));
        }
        Err(error) => return Err(error),
    }
    output::print(&template::render(&format, HEADERS, &rows)?)?;
    Ok(0)
}

fn row(found: &Found, source: &str, whole: bool) -> Row {
    let line = found.description.replace(['\n', '\r'], " ");
    let cut = !whole && line.chars().count() > SHOWN;
    let shown = if cut { line.chars().take(SHOWN - 1).chain(['…']).collect() } else { line };
    let mark = |set: bool| if set { "[OK]" } else { "" };
    Row::default()
        .with("Name", &found.name)
        .with("Description", shown)
        .with("StarCount", found.stars.to_string())
        .with("IsOfficial", mark(found.official))
        .with("IsAutomated", mark(found.automated))
        .with("Source", source)
}

/// `--filter` of a search.
enum Filter {
    Official(bool),
    Automated(bool),
    Stars(u64),
}

impl Filter {
    fn parse(text: &str) -> Result<Filter> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let wrong = || Failure::usage(format!("invalid filter '{key}={value}'"));
        Ok(match key {
            "is-official" => Filter::Official(spec::parse_boolean(value).ok_or_else(wrong)?),
            "is-automated" => Filter::Automated(spec::parse_boolean(value).ok_or_else(wrong)?),
            "stars" => Filter::Stars(value.parse().map_err(|_| wrong())?),
            _ => return Err(Failure::usage(format!("invalid filter '{key}'")).into()),
        })
    }

    fn accepts(&self, found: &Found) -> bool {
        match self {
            Filter::Official(wanted) => found.official == *wanted,
            Filter::Automated(wanted) => found.automated == *wanted,
            Filter::Stars(least) => found.stars >= *least,
        }
    }
}
