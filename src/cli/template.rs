//! `--format`: Go templates with Docker's functions, over rows (listings) or one object (inspect).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::output::{self, Refusal};
use super::table;

/// How a listing is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Format {
    /// A table of this template's columns.
    Table(String),
    /// This template once per row.
    Raw(String),
}

impl Format {
    /// Reads `--format`; `default` is the template of the table that is shown without.
    pub(super) fn parse(text: Option<&str>, default: &str) -> Format {
        match text.map(str::trim_start) {
            None | Some("" | "table") => Format::Table(default.to_owned()),
            Some("json") => Format::Raw("{{json .}}".to_owned()),
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => Format::Table(unescape(columns.trim())),
                None => Format::Raw(unescape(text)),
            },
        }
    }
}

/// A shell hands `\t` over as two characters; Docker takes them for a tab.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Where a row keeps the labels that `.Label "name"` asks; no template can spell it.
const LABELS: &str = "\0labels";
/// Where an object keeps what `json` prints of it, when that is not its fields.
const JSON: &str = "\0json";

/// A row of a listing: field names and texts.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    fields: BTreeMap<Arc<str>, Value>,
}

impl Row {
    /// Adds a field.
    #[must_use]
    pub(super) fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.fields.insert(name.into(), Value::String(text.into().into()));
        self
    }

    /// Adds what `.Label "name"` looks up.
    #[must_use]
    pub(super) fn with_labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        let map = labels.iter().map(|(key, value)| (Arc::from(key.as_str()), Value::String(value.as_str().into())));
        self.fields.insert(LABELS.into(), Value::Map(Arc::new(map.collect())));
        self
    }

    /// What a field says; empty where there is none.
    pub(super) fn text(&self, name: &str) -> String {
        self.fields.get(name).map(ToString::to_string).unwrap_or_default()
    }

    fn printable(&self) -> Value {
        Value::Map(Arc::new(self.fields.iter().map(|(key, value)| (key.clone(), printable(value))).collect()))
    }
}

/// The same value with control characters spelled out.
fn printable(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(output::printable(text).into()),
        Value::Map(map) => Value::Map(Arc::new(map.iter().map(|(k, v)| (k.clone(), printable(v))).collect())),
        other => other.clone(),
    }
}

/// Shows rows. `headers` names every field of a row with its heading.
pub(super) fn render(format: &Format, headers: &[(&str, &str)], rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    match format {
        Format::Raw(source) => {
            // Tried on the headings first: a wrong field is an error also when there is nothing to list.
            let heading = Row { fields: headers.iter().map(|(k, v)| (Arc::from(*k), Value::from(*v))).collect() };
            line(source, Heading::Yes, &heading.printable())?;
            let template = compile(source, Heading::No)?;
            for row in rows {
                let value = Value::Map(Arc::new(row.fields.clone()));
                text.push_str(&template.execute_to_string(&value).map_err(|error| explain(&error, source))?);
                text.push('\n');
            }
        }
        Format::Table(source) => {
            let heading = Row { fields: headers.iter().map(|(k, v)| (Arc::from(*k), Value::from(*v))).collect() };
            let mut cells = vec![line(source, Heading::Yes, &heading.printable())?];
            let template = compile(source, Heading::No)?;
            for row in rows {
                let text = template.execute_to_string(&row.printable()).map_err(|error| explain(&error, source))?;
                cells.extend(text.split('\n').map(split));
            }
            text = table::align(&cells);
        }
    }
    Ok(text)
}

fn line(source: &str, heading: Heading, value: &Value) -> Result<Vec<String>> {
    let text = compile(source, heading)?.execute_to_string(value).map_err(|error| explain(&error, source))?;
    Ok(split(&text))
}

fn split(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// Shows one object of any shape (`inspect`, `info`, `version`).
pub(super) fn render_object(source: &str, object: &serde_json::Value) -> Result<String> {
    let source = if source == "json" { "{{json .}}" } else { source };
    let template = compile(source, Heading::No)?;
    let value = from_json(object, "");
    let shown = match (template.execute_to_string(&value), &value) {
        // What the JSON calls `Id` is `ID` in Docker's Go types, and templates may say either.
        (Err(TemplateError::MissingKey { key }), Value::Map(map)) if key == "ID" && map.contains_key("Id") => {
            let mut fields = map.as_ref().clone();
            fields.insert(JSON.into(), value.clone());
            fields.insert("ID".into(), map["Id"].clone());
            template.execute_to_string(&Value::Map(Arc::new(fields)))
        }
        (shown, _) => shown,
    };
    shown.map_err(|error| explain(&error, source))
}

/// A template that is shown again and again, over objects of one shape (`events`).
pub(super) struct Repeated {
    template: Template,
    source: String,
}

impl Repeated {
    /// Reads the template.
    pub(super) fn compile(source: &str) -> Result<Repeated> {
        let source = unescape(source);
        Ok(Repeated { template: compile(&source, Heading::No)?, source })
    }

    /// Shows an object; `whole` is what `{{json .}}` prints of it. A field that it lacks is an error, but
    /// a key that its map of texts at `texts` (a JSON pointer) lacks is the empty text: both as in Go.
    pub(super) fn show(&self, object: &serde_json::Value, texts: &str, whole: &serde_json::Value) -> Result<String> {
        let mut object = object.clone();
        loop {
            let mut fields = match from_json(&object, "") {
                Value::Map(map) => map.as_ref().clone(),
                _ => BTreeMap::new(),
            };
            fields.insert(JSON.into(), from_json(whole, ""));
            match (self.template.execute_to_string(&Value::Map(Arc::new(fields))), object.pointer_mut(texts)) {
                (Err(TemplateError::MissingKey { key }), Some(serde_json::Value::Object(map)))
                    if !map.contains_key(&key) =>
                {
                    map.insert(key, "".into());
                }
                (result, _) => return result.map_err(|error| explain(&error, &self.source)),
            }
        }
    }
}

/// Lists that Go prints as `[]` though their JSON is `null`.
const LISTS: [&str; 14] = [
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "Dns",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "OnBuild",
    "SecurityOpt",
    "Shell",
];

fn from_json(value: &serde_json::Value, key: &str) -> Value {
    match value {
        serde_json::Value::Null if LISTS.contains(&key) => Value::List(Arc::new([])),
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(on) => Value::Bool(*on),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::String(text.as_str().into()),
        serde_json::Value::Array(list) => Value::List(list.iter().map(|value| from_json(value, "")).collect()),
        serde_json::Value::Object(map) => {
            Value::Map(Arc::new(map.iter().map(|(k, v)| (Arc::from(k.as_str()), from_json(v, k))).collect()))
        }
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(on) => (*on).into(),
        Value::Int(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::String(text) => text.as_ref().into(),
        Value::List(list) => list.iter().map(to_json).collect(),
        Value::Map(map) if map.contains_key(JSON) => to_json(&map[JSON]),
        Value::Map(map) => {
            let shown = map.iter().filter(|(key, _)| key.as_ref() != LABELS);
            shown.map(|(key, value)| (key.to_string(), to_json(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Nil | Value::Function(_) => serde_json::Value::Null,
    }
}

/// Whether a template makes a table's first line, where functions leave headings as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heading {
    Yes,
    No,
}

fn compile(source: &str, heading: Heading) -> Result<Template> {
    let mut template = Template::new("").missing_key(MissingKey::Error);
    let functions: [(&str, Function); 10] = [
        ("json", |args| Ok(serde_json::to_string(&to_json(one(args)?)).map_err(other)?.into())),
        ("lower", |args| Ok(text(args, 0)?.to_lowercase().into())),
        ("upper", |args| Ok(text(args, 0)?.to_uppercase().into())),
        ("title", |args| Ok(title(text(args, 0)?).into())),
        ("split", |args| Ok(text(args, 0)?.split(text(args, 1)?).map(Value::from).collect::<Vec<_>>().into())),
        ("join", join),
        ("pad", pad),
        ("truncate", |args| Ok(text(args, 0)?.chars().take(size(args, 1)?).collect::<String>().into())),
        ("index", index),
        ("label", label),
    ];
    for (name, function) in functions {
        let passes = heading == Heading::Yes && !matches!(name, "label" | "index");
        match (heading, name) {
            (Heading::Yes, "label") => template = template.func(name, label_heading),
            _ if passes => template = template.func(name, |args| Ok(args.first().cloned().unwrap_or(Value::Nil))),
            _ => template = template.func(name, function),
        }
    }
    template.parse(&methods(source)).map_err(|error| explain(&error, source))
}

type Function = fn(&[Value]) -> Result<Value, TemplateError>;

/// A failure of a template is the front end's: exit code 1, as Docker's.
fn explain(error: &TemplateError, source: &str) -> anyhow::Error {
    let why = match error {
        TemplateError::MissingKey { key } => format!("there is no field {key:?} here"),
        other => other.to_string(),
    };
    anyhow!(Refusal::plain(format!("template {source:?}: {why}")))
}

fn other(error: impl std::fmt::Display) -> TemplateError {
    TemplateError::Exec(error.to_string())
}

fn one(args: &[Value]) -> Result<&Value, TemplateError> {
    args.first().ok_or_else(|| other("an argument is missing"))
}

fn text(args: &[Value], index: usize) -> Result<&str, TemplateError> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text),
        Some(value) => Err(TemplateError::TypeMismatch { expected: "string", got: value.type_name() }),
        None => Err(other("an argument is missing")),
    }
}

/// A count, bounded: `pad` must not fill the memory.
fn size(args: &[Value], index: usize) -> Result<usize, TemplateError> {
    let count = args.get(index).and_then(Value::as_int).ok_or_else(|| other("a number is missing"))?;
    usize::try_from(count).ok().filter(|count| *count <= 1 << 16).ok_or_else(|| other("a number is out of range"))
}

fn title(text: &str) -> String {
    let mut begins = true;
    let mut titled = String::with_capacity(text.len());
    for character in text.chars() {
        if begins {
            titled.extend(character.to_uppercase());
        } else {
            titled.push(character);
        }
        begins = !(character.is_alphanumeric() || character == '_' || character == '\'');
    }
    titled
}

fn join(args: &[Value]) -> Result<Value, TemplateError> {
    let separator = text(args, 1)?;
    let list = match one(args)? {
        Value::List(list) => list.clone(),
        Value::Nil => Arc::new([]),
        other => return Err(TemplateError::TypeMismatch { expected: "list", got: other.type_name() }),
    };
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    Ok(words.join(separator).into())
}

fn pad(args: &[Value]) -> Result<Value, TemplateError> {
    let text = text(args, 0)?;
    if text.is_empty() {
        return Ok("".into());
    }
    Ok(format!("{}{text}{}", " ".repeat(size(args, 1)?), " ".repeat(size(args, 2)?)).into())
}

/// Go's `index`, whose answer for a key that a map of texts lacks is the empty text.
fn index(args: &[Value]) -> Result<Value, TemplateError> {
    let mut value = one(args)?.clone();
    for key in &args[1..] {
        value = match (&value, key) {
            (Value::Map(map), Value::String(key)) => map.get(key.as_ref()).cloned().unwrap_or_else(|| "".into()),
            (Value::Nil, _) => "".into(),
            _ => value.index(key)?,
        };
    }
    Ok(value)
}

fn label(args: &[Value]) -> Result<Value, TemplateError> {
    let name = text(args, 1)?;
    match one(args)?.field(LABELS) {
        Some(labels) => Ok(labels.field(name).cloned().unwrap_or_else(|| "".into())),
        None => Err(other("there are no labels here")),
    }
}

/// The heading of a label is the last part of its name, as Docker shows it.
fn label_heading(args: &[Value]) -> Result<Value, TemplateError> {
    let name = text(args, 1)?;
    let last = name.rsplit('.').next().unwrap_or(name);
    Ok(last.replace(['-', '_'], " ").to_uppercase().into())
}

/// Go calls `.Label "x"` as a method; the template library has functions only: `label . "x"`.
/// Text outside of `{{ }}` and in quotes is left alone.
fn methods(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    let (mut inside, mut quote) = (false, None);
    while let Some(character) = rest.chars().next() {
        let boundary = !text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ')' | '$'));
        if quote.is_none() && !inside && rest.starts_with("{{") {
            inside = true;
        } else if quote.is_none() && inside && rest.starts_with("}}") {
            inside = false;
        } else if inside && quote.is_none() {
            let call = [("$.Label", "label $"), (".Label", "label .")].into_iter();
            let call = call.filter_map(|(old, new)| Some((rest.strip_prefix(old)?, new))).next();
            if let Some((after, new)) = call.filter(|(after, _)| boundary && after.starts_with([' ', '\t'])) {
                text.push_str(new);
                rest = after;
                continue;
            }
            quote = matches!(character, '"' | '`').then_some(character);
        } else if quote == Some(character) && !(character == '"' && text.ends_with('\\')) {
            quote = None;
        }
        text.push(character);
        rest = &rest[character.len_utf8()..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let labels = BTreeMap::from([("com.example.some-part".to_owned(), "x\u{1b}[1m".to_owned())]);
        Row::default().with("ID", "0123456789ab").with("Names", "web").with_labels(&labels)
    }

    const HEADERS: &[(&str, &str)] = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn shown(format: &str) -> String {
        render(&Format::parse(Some(format), "{{.ID}}\t{{.Names}}"), HEADERS, &[row()]).unwrap()
    }

    #[test]
    fn listings_have_three_forms() {
        assert_eq!(shown("table"), "CONTAINER ID   NAMES\n0123456789ab   web\n");
        assert_eq!(shown("table {{.Names}}\\t{{upper .ID}}"), "NAMES     CONTAINER ID\nweb       0123456789AB\n");
        assert_eq!(shown("{{.Names}}: {{.ID}}"), "web: 0123456789ab\n");
        assert_eq!(shown("json"), "{\"ID\":\"0123456789ab\",\"Names\":\"web\"}\n");
    }

    #[test]
    fn labels_are_called_like_methods_and_quoted_in_tables() {
        assert_eq!(shown("{{.Label \"com.example.some-part\"}}"), "x\u{1b}[1m\n");
        assert_eq!(shown("{{.Label \"none\"}}|{{with .Names}}{{$.Label \"none\"}}{{end}}"), "|\n");
        assert_eq!(
            shown("table {{.Label \"com.example.some-part\"}}\\t{{.Names}}"),
            "SOME PART    NAMES\nx\\u{1b}[1m   web\n"
        );
        assert_eq!(shown(".Label {{\".Label x\"}}"), ".Label .Label x\n");
    }

    #[test]
    fn templates_about_networks() {
        let container = serde_json::json!({"NetworkSettings": {
            "IPAddress": "172.17.0.2",
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null},
            "Networks": {"a": {"IPAddress": "172.18.0.2"}, "b": {"IPAddress": "172.19.0.2"}},
        }});
        let network =
            serde_json::json!({"Id": "abc", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}, "Containers": {}});
        let of_container = |source| render_object(source, &container).unwrap();
        let of_network = |source| render_object(source, &network).unwrap();
        assert_eq!(of_container("{{.NetworkSettings.IPAddress}}"), "172.17.0.2");
        assert_eq!(of_container("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"), "172.18.0.2 172.19.0.2 ");
        assert_eq!(of_container("{{range $k, $v := .NetworkSettings.Networks}}{{$k}},{{end}}"), "a,b,");
        let port = r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#;
        assert_eq!(of_container(port), "8080");
        assert_eq!(
            of_container("{{json .NetworkSettings.Ports}}"),
            r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"90/tcp":null}"#
        );
        let every =
            "{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} -> {{range $conf}}{{.HostPort}}{{end}};{{end}}";
        assert_eq!(of_container(every), "80/tcp -> 8080;90/tcp -> ;");
        assert_eq!(of_network("{{(index .IPAM.Config 0).Subnet}}"), "10.0.0.0/24");
        assert_eq!(of_network("{{range .IPAM.Config}}{{.Subnet}}{{end}}"), "10.0.0.0/24");
        assert_eq!(of_network("{{.ID}} {{.Id}} {{len .Containers}}"), "abc abc 0");
        assert_eq!(of_network("{{.ID}} {{json .Containers}}"), "abc {}");
        assert!(of_network("{{if .ID}}{{json .}}{{end}}").starts_with(r#"{"Containers":{},"IPAM""#));
        assert!(render_object("{{.ID}}", &container).is_err());
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let text = render(&Format::parse(Some("{{.Foo}}"), ""), HEADERS, &[row()]).unwrap_err().to_string();
        assert!(text.contains("Foo"), "{text}");
        assert!(render(&Format::parse(Some("{{.Foo"), ""), HEADERS, &[row()]).is_err());
    }

    #[test]
    fn dockers_functions() {
        let object =
            serde_json::json!({"A": "one two", "L": ["x", "y"], "N": 3, "Cmd": null, "M": {"k": "v"}, "Z": null});
        for (source, expected) in [
            ("{{json .L}}", r#"["x","y"]"#),
            ("{{json .M}} {{.N}} {{.L}} {{.Cmd}}", r#"{"k":"v"} 3 [x y] []"#),
            ("{{join .L \", \"}}", "x, y"),
            ("{{index (split .A \" \") 1}}", "two"),
            ("{{title .A}} {{upper .A}} {{lower \"ABC\"}}", "One Two ONE TWO abc"),
            ("[{{pad .A 1 2}}] {{truncate .A 3}} {{truncate .A 99}}", "[ one two  ] one one two"),
            ("{{index .M \"k\"}}{{index .M \"missing\"}}", "v"),
            ("{{range .L}}{{println .}}{{end}}", "x\ny\n"),
            ("{{with .Z}}set{{else}}unset{{end}}", "unset"),
            ("{{if eq .N 3}}three{{end}} {{len .L}}", "three 2"),
            ("json", r#"{"A":"one two","Cmd":[],"L":["x","y"],"M":{"k":"v"},"N":3,"Z":null}"#),
        ] {
            assert_eq!(render_object(source, &object).unwrap(), expected, "{source}");
        }
        for bad in ["{{.Q}}", "{{upper .N}}", "{{pad .A 99999999 1}}", "{{split .A}}", "{{foo}}", "{{"] {
            assert!(render_object(bad, &object).is_err(), "{bad}");
        }
    }
}
