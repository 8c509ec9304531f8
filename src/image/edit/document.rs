//! A config as JSON, and what is changed in it (OCI image spec, config.md).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Change, CommandForm, words};
use crate::error::Failure;
use crate::image::oci::config::MAX_LAYERS;
use crate::image::oci::digest::Digest;
use crate::image::{Defaults, Healthcheck};

/// Where shell forms go unless the image says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Fields that describe how Docker made the base, and of which nothing is true of what is made from it.
const LEFTOVERS: [&str; 6] = ["container", "container_config", "docker_version", "id", "parent", "throwaway"];

/// A step in an image's history, and the layer that it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub created: Timestamp,
    /// By what command.
    pub created_by: String,
    /// By whom; empty for nobody.
    pub author: String,
    /// A comment; may be empty.
    pub comment: String,
    /// Digest of the layer's uncompressed tar; `None` for a step that changed no file.
    pub layer: Option<Digest>,
}

/// A config that is being changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    root: Map<String, Value>,
    /// Whether a command was set here: an entrypoint takes away one that was inherited.
    command_set: bool,
}

impl Document {
    /// The config of an image without layers, for this platform.
    pub fn empty(platform: &crate::image::oci::platform::Platform) -> Document {
        let mut root = Map::new();
        root.insert("architecture".into(), json!(platform.architecture));
        root.insert("os".into(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            root.insert("variant".into(), json!(variant));
        }
        root.insert("config".into(), json!({}));
        root.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        Document { root, command_set: false }
    }

    /// Reads the config of a base image.
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        match serde_json::from_slice(bytes).context("parse image config")? {
            Value::Object(root) => Ok(Document { root, command_set: false }),
            _ => bail!("parse image config: it is no object"),
        }
    }

    /// The config as bytes, the same for the same contents.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.root).context("encode image config")
    }

    /// Replaces layers and history; for a base of which no more is known.
    pub fn set_layers(&mut self, diff_ids: &[String]) {
        self.root.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
        self.root.remove("history");
    }

    /// Adds a step on top.
    ///
    /// # Errors
    /// More layers than can be stacked; a base whose list of layers or history is none.
    pub fn push(&mut self, step: &Step) -> Result<()> {
        for name in LEFTOVERS {
            self.root.remove(name);
        }
        self.root.insert("created".into(), json!(step.created.to_string()));
        set_text(&mut self.root, "author", &step.author);
        // Docker notes the last comment here as well: the base's must not stay for the new image's.
        set_text(&mut self.root, "comment", &step.comment);
        if let Some(layer) = &step.layer {
            let layers = self.root.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
            let layers = layers.and_then(Value::as_array_mut).context("the image's config has no list of layers")?;
            if layers.len() >= MAX_LAYERS {
                return Err(Failure::engine(format!("the image would have more than {MAX_LAYERS} layers"))
                    .with_hint("export a container and import it again: that gives one layer")
                    .into());
            }
            layers.push(json!(layer));
        }
        let mut entry = Map::new();
        entry.insert("created".into(), json!(step.created.to_string()));
        set_text(&mut entry, "created_by", &step.created_by);
        set_text(&mut entry, "author", &step.author);
        set_text(&mut entry, "comment", &step.comment);
        if step.layer.is_none() {
            entry.insert("empty_layer".into(), json!(true));
        }
        let history = self.root.entry("history").or_insert(Value::Null);
        if history.is_null() {
            *history = json!([]);
        }
        history.as_array_mut().context("the image's history is no list")?.push(Value::Object(entry));
        Ok(())
    }

    /// Takes over what a container was run with. What containers know nothing of stays the base's; instructions for
    /// builds on it (`ONBUILD`) have been carried out or never will be.
    pub fn run_with(&mut self, defaults: &Defaults) -> Result<()> {
        let config = self.config()?;
        set_list(config, "Env", &defaults.env);
        set_list(config, "Entrypoint", &defaults.entrypoint);
        set_list(config, "Cmd", &defaults.command);
        set_text(config, "User", &defaults.user);
        set_text(config, "WorkingDir", &defaults.workdir);
        set_text(config, "StopSignal", defaults.stop_signal.as_deref().unwrap_or_default());
        set_list(config, "Shell", &defaults.shell);
        set_healthcheck(config, defaults.healthcheck.as_ref());
        set_keys(config, "Volumes", defaults.volumes.iter());
        set_keys(config, "ExposedPorts", defaults.exposed_ports.iter());
        match defaults.labels.is_empty() {
            true => drop(config.remove("Labels")),
            false => drop(config.insert("Labels".into(), json!(defaults.labels))),
        }
        if let Some(check) = &defaults.healthcheck {
            config.insert("Healthcheck".into(), json!(check));
        }
        config.remove("OnBuild");
        Ok(())
    }

    /// Carries out instructions, in their order.
    ///
    /// # Errors
    /// A quote that does not end, a port that is none; a field of the base that has another type than it should.
    pub fn apply(&mut self, changes: &[Change]) -> Result<()> {
        changes.iter().try_for_each(|change| self.change(change))
    }

    fn change(&mut self, change: &Change) -> Result<()> {
        let shell = list(self.config()?, "Shell");
        let shell = if shell.is_empty() { SHELL.map(str::to_owned).to_vec() } else { shell };
        let words_of = |form: &CommandForm| match form {
            CommandForm::Exec(words) => words.clone(),
            CommandForm::Shell(line) if line.is_empty() => Vec::new(),
            CommandForm::Shell(line) => shell.iter().cloned().chain([line.clone()]).collect(),
        };
        let command_set = self.command_set;
        let config = self.config()?;
        let environment = list(config, "Env");
        let expand =
            |word: &str| words::process(word, &environment).map_err(|error| Failure::usage(format!("{error:#}")));
        match change {
            Change::Cmd(form) => {
                set_list(config, "Cmd", &words_of(form));
                self.command_set = true;
            }
            Change::Entrypoint(form) => {
                set_list(config, "Entrypoint", &words_of(form));
                if !command_set {
                    config.remove("Cmd");
                }
            }
            Change::Env(pairs) => {
                let mut list = environment.clone();
                for (name, value) in pairs {
                    let (name, entry) = (expand(name)?, expand(value)?);
                    let entry = format!("{name}={entry}");
                    let same = |other: &String| other.split('=').next() == Some(&name);
                    match list.iter().position(same) {
                        Some(at) => list[at] = entry,
                        None => list.push(entry),
                    }
                }
                set_list(config, "Env", &list);
            }
            Change::Label(pairs) => {
                let labels = object(config, "Labels")?;
                for (name, value) in pairs {
                    labels.insert(expand(name)?, json!(expand(value)?));
                }
            }
            Change::Expose(ports) => {
                let mut all = BTreeSet::new();
                for port in ports {
                    for word in expand(port)?.split_whitespace() {
                        all.extend(self::ports(word)?);
                    }
                }
                let exposed = object(config, "ExposedPorts")?;
                exposed.extend(all.into_iter().map(|port| (port, json!({}))));
            }
            Change::Volume(paths) => {
                let paths = paths.iter().map(|path| expand(path)).collect::<Result<Vec<_>, _>>()?;
                object(config, "Volumes")?.extend(paths.into_iter().map(|path| (path, json!({}))));
            }
            Change::Workdir(path) => {
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default().to_owned();
                config.insert("WorkingDir".into(), json!(joined(&before, &expand(path)?)));
            }
            Change::User(user) => set_text(config, "User", &expand(user)?),
            Change::StopSignal(signal) => set_text(config, "StopSignal", &expand(signal)?),
            Change::OnBuild(line) => {
                let mut list = list(config, "OnBuild");
                list.push(line.clone());
                set_list(config, "OnBuild", &list);
            }
            Change::Healthcheck(check) => set_healthcheck(config, Some(check)),
        }
        Ok(())
    }

    /// What containers inherit.
    fn config(&mut self) -> Result<&mut Map<String, Value>> {
        object(&mut self.root, "config")
    }
}

/// The object that is called `name`, made where it is missing or null.
fn object<'a>(parent: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Map<String, Value>> {
    let value = parent.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().with_context(|| format!("{name} in the image's config is no object"))
}

fn list(config: &Map<String, Value>, name: &str) -> Vec<String> {
    let items = config.get(name).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn set_list(config: &mut Map<String, Value>, name: &str, items: &[String]) {
    match items.is_empty() {
        true => drop(config.remove(name)),
        false => drop(config.insert(name.to_owned(), json!(items))),
    }
}

fn set_text(config: &mut Map<String, Value>, name: &str, text: &str) {
    match text.is_empty() {
        true => drop(config.remove(name)),
        false => drop(config.insert(name.to_owned(), json!(text))),
    }
}

fn set_healthcheck(config: &mut Map<String, Value>, check: Option<&Healthcheck>) {
    let Some(check) = check else {
        config.remove("Healthcheck");
        return;
    };
    let mut value = Map::new();
    if let Some(test) = &check.test {
        value.insert("Test".into(), json!(test));
    }
    for (name, number) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if number != 0 {
            value.insert(name.into(), json!(number));
        }
    }
    config.insert("Healthcheck".into(), Value::Object(value));
}

/// An object whose keys are the set, as Go writes one.
fn set_keys<'a>(config: &mut Map<String, Value>, name: &str, keys: impl Iterator<Item = &'a String>) {
    let keys: Map<String, Value> = keys.map(|key| (key.clone(), json!({}))).collect();
    match keys.is_empty() {
        true => drop(config.remove(name)),
        false => drop(config.insert(name.to_owned(), Value::Object(keys))),
    }
}

/// `80`, `80/udp`, `8000-8002/tcp` as single ports with their protocol.
fn ports(text: &str) -> Result<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Failure::usage(format!("invalid proto: {protocol}")).into());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect()),
        _ => Err(Failure::usage(format!("invalid containerPort: {range}")).into()),
    }
}

/// `path` seen from `before`, without `.`, `..` and double slashes.
fn joined(before: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{before}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
