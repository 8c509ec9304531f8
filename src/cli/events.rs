//! `events`.

use anyhow::{Context, Result};
use clap::ArgMatches;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::instant;
use super::output::{self, Refusal, printable};
use super::spec::{self, Arity, Spec};
use super::template::Repeated;
use crate::engine::events::{Event, EventsRequest, Filter, Kind};

pub(super) static EVENTS: Spec = Spec {
    name: "events",
    usage: "[OPTIONS]",
    about: "Get real time events from the engine",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::list("filter", Some('f'), "filter", "Filter output based on conditions provided (container, event, image, label, network, scope, type, volume)"))
            .arg(spec::value("format", None, "string", "Format output: 'json' or a Go template"))
            .arg(spec::value("since", None, "string", "Show all events created since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"))
            .arg(spec::value("until", None, "string", "Stream events until this timestamp"))
    },
    run: |session, matches| {
        let request = lower(matches, Timestamp::now())?;
        let format = Format::parse(spec::text(matches, "format").as_deref())?;
        // Ends when `until` has passed, by ctrl-c, or when nobody reads any more.
        session.engine()?.events(&request, &mut |event| output::print_line(&format.show(event)?))?;
        Ok(0)
    },
};

/// What the flags ask of the engine.
pub(super) fn lower(matches: &ArgMatches, now: Timestamp) -> Result<EventsRequest> {
    let mut filters = Vec::new();
    for text in spec::texts(matches, "filter") {
        filters.push(Filter::parse(&text).map_err(Refusal::plain)?);
    }
    let moment = |flag| instant::of_flag(matches, flag, now);
    Ok(EventsRequest { since: moment("since")?, until: moment("until")?, filters })
}

/// How an event is shown.
enum Format {
    Text,
    Json,
    Template(Repeated),
}

impl Format {
    /// Reads `--format`. A template is tried at once: one that is wrong must not wait for an event to
    /// be found out.
    fn parse(text: Option<&str>) -> Result<Format> {
        match text.map(str::trim) {
            None | Some("") => Ok(Format::Text),
            Some("json" | "{{json .}}") => Ok(Format::Json),
            Some(source) => {
                let format = Format::Template(Repeated::compile(source)?);
                format.show(&Event {
                    time: Timestamp::UNIX_EPOCH,
                    kind: Kind::Container,
                    action: String::new(),
                    id: String::new(),
                    attributes: Default::default(),
                })?;
                Ok(format)
            }
        }
    }

    fn show(&self, event: &Event) -> Result<String> {
        match self {
            Format::Text => Ok(text(event, &TimeZone::system())),
            Format::Json => serde_json::to_string(event).context("encode an event"),
            Format::Template(template) => {
                let whole = serde_json::to_value(event).context("encode an event")?;
                template.show(&go_fields(event), "/Actor/Attributes", &whole)
            }
        }
    }
}

/// The names of Docker's Go type, which differ from those of its JSON.
fn go_fields(event: &Event) -> serde_json::Value {
    let legacy = |text: &str| if event.is_legacy() { text.to_owned() } else { String::new() };
    json!({
        "Status": legacy(&event.action),
        "ID": legacy(&event.id),
        "From": event.from_image().unwrap_or_default(),
        "Type": event.kind.as_str(),
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "Scope": "local",
        "Time": event.time.as_second(),
        "TimeNano": event.nanoseconds(),
    })
}

/// `2026-11-21T12:00:00.000000000Z container start ID (image=busybox, name=web)`
fn text(event: &Event, zone: &TimeZone) -> String {
    let time = event.time.to_zoned(zone.clone());
    let offset = if time.offset().is_zero() { "Z".to_owned() } else { time.strftime("%:z").to_string() };
    let time = time.strftime("%Y-%m-%dT%H:%M:%S%.9f");
    let attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let list = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{time}{offset} {} {} {}{}", event.kind.as_str(), printable(&event.action), event.id, printable(&list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time: "2026-11-21T12:00:00.5Z".parse().unwrap(),
            kind: Kind::Container,
            action: "die".into(),
            id: "0123".into(),
            attributes: [("name", "web"), ("image", "busybox"), ("exitCode", "1"), ("x", "\u{1b}[1m\n")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    #[test]
    fn text_is_dockers_with_control_characters_quoted() {
        let fixed = |hours| jiff::tz::offset(hours).to_time_zone();
        assert_eq!(
            text(&event(), &TimeZone::UTC),
            "2026-11-21T12:00:00.500000000Z container die 0123 (exitCode=1, image=busybox, name=web, x=\\u{1b}[1m\\n)"
        );
        assert!(text(&event(), &fixed(2)).starts_with("2026-11-21T14:00:00.500000000+02:00 container die"));
        let bare = Event { attributes: Default::default(), kind: Kind::Volume, ..event() };
        assert!(text(&bare, &TimeZone::UTC).ends_with("Z volume die 0123"));
    }

    #[test]
    fn json_has_dockers_fields_in_dockers_order() {
        let json = Format::parse(Some("json")).unwrap().show(&event()).unwrap();
        assert_eq!(
            json,
            r#"{"status":"die","id":"0123","from":"busybox","Type":"container","Action":"die","Actor":{"ID":"0123","Attributes":{"exitCode":"1","image":"busybox","name":"web","x":"\u001b[1m\n"}},"scope":"local","time":1795262400,"timeNano":1795262400500000000}"#
        );
        let bare = Event { attributes: Default::default(), kind: Kind::Volume, ..event() };
        let json = Format::Json.show(&bare).unwrap();
        assert!(
            json.starts_with(r#"{"Type":"volume","Action":"die","Actor":{"ID":"0123","Attributes":{}},"#),
            "{json}"
        );
    }

    #[test]
    fn templates_see_the_go_type() {
        for (source, expected) in [
            ("{{.Time}} {{.TimeNano}}", "1795262400 1795262400500000000"),
            ("{{.Type}} {{.Action}} {{.Status}} {{.ID}} {{.From}} {{.Scope}}", "container die die 0123 busybox local"),
            ("{{.Actor.ID}} {{.Actor.Attributes.name}}[{{.Actor.Attributes.none}}]", "0123 web[]"),
            (r#"{{index .Actor.Attributes "exitCode"}}\t{{json .Actor.ID}}"#, "1\t\"0123\""),
            ("{{if eq .Action \"die\"}}dead{{end}}", "dead"),
        ] {
            let shown = Format::parse(Some(source)).unwrap().show(&event()).unwrap();
            assert_eq!(shown, expected, "{source}");
        }
        assert!(matches!(Format::parse(Some("{{json .}}")), Ok(Format::Json)), "Docker's order of fields");
        let whole = Format::parse(Some("{{json . }}")).unwrap().show(&event()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!((value["status"].as_str(), value["timeNano"].as_i64()), (Some("die"), Some(1795262400500000000)));
        for bad in ["{{.Foo}}", "{{.Actor.Foo}}", "{{.status}}", "{{", "{{foo}}"] {
            assert!(Format::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
