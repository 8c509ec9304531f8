//! Image configs (OCI image spec, config.md): only what is needed of them, and what a container inherits.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::platform::{Platform, architecture};
use crate::error::Failure;

/// The largest config, manifest or index that is read, in bytes.
pub(in crate::image) const MAX_DOCUMENT: u64 = 8 << 20;
/// The most layers overlayfs stacks (`OVL_MAX_STACK`, fs/overlayfs/params.h).
pub(in crate::image) const MAX_LAYERS: usize = 500;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…`, the digest of its config.
    pub id: String,
    /// Diff ids (`sha256:…`) of its layers, lowest first; each is unpacked below `overlay2/layers`.
    pub layers: Vec<String>,
    /// What it was built for, as far as its config says.
    pub platform: Option<Platform>,
    /// What a container inherits.
    pub defaults: Defaults,
}

/// The part of an image config that a container inherits (OCI image spec, config.md).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Command.
    pub command: Vec<String>,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub workdir: String,
    /// Paths that get an anonymous volume each.
    pub volumes: Vec<String>,
    /// Signal that `stop` sends.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `80/tcp`, ….
    pub exposed_ports: Vec<String>,
    /// How to find out whether a container does what it is for.
    pub healthcheck: Option<Healthcheck>,
    /// What commands in shell form are given to; empty for `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// The health check that an image brings along: Docker's extension of the image config, which OCI reserves
/// (image spec, config.md, "Healthcheck"). A number that is 0 was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a line for the shell; empty as the image below has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Between two checks, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long one may take, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// How long the container may take to get ready, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in that time, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A config as it stands in the file; unknown fields are left where they are.
#[derive(Debug, Default, Deserialize)]
pub(in crate::image) struct ConfigFile {
    pub(in crate::image) created: Option<String>,
    #[serde(default)]
    os: String,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<Runtime>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// Go writes `null` where it has nothing, hence the options.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Runtime {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
}

impl ConfigFile {
    /// Parses and checks a config.
    ///
    /// # Errors
    /// Malformed JSON, an operating system other than Linux, diff ids that are none.
    pub(in crate::image) fn parse(bytes: &[u8]) -> Result<ConfigFile> {
        let config: ConfigFile = serde_json::from_slice(bytes).context("parse image config")?;
        if !config.os.is_empty() && config.os != "linux" {
            let message = format!("the image is for the operating system {:?}", config.os);
            return Err(Failure::engine(message).with_hint("only Linux images run here").into());
        }
        if !config.rootfs.kind.is_empty() && config.rootfs.kind != "layers" {
            bail!("parse image config: unknown kind of root file system {:?}", config.rootfs.kind);
        }
        config.diff_ids().context("parse image config")?;
        Ok(config)
    }

    /// What the image is for, as far as the config says.
    pub(in crate::image) fn platform(&self) -> Option<Platform> {
        let architecture = self.architecture.clone().filter(|architecture| !architecture.is_empty())?;
        let os = if self.os.is_empty() { "linux".to_owned() } else { self.os.clone() };
        let variant = self.variant.clone().filter(|variant| !variant.is_empty());
        Some(Platform { os, architecture, variant })
    }

    /// That the image, which is called `name`, is for the platform that was asked for.
    ///
    /// # Errors
    /// It is for another (class not-found).
    pub(in crate::image) fn expect_platform(&self, wanted: Option<&Platform>, name: &str) -> Result<()> {
        match (wanted, self.platform()) {
            (Some(wanted), Some(offered)) if !wanted.accepts(&offered) => Err(Failure::not_found(format!(
                "image with reference {name} was found but does not provide the specified platform ({wanted})"
            ))
            .with_hint(format!("it is for {offered}"))
            .into()),
            _ => Ok(()),
        }
    }

    /// Digests of the uncompressed layers, lowest first.
    pub(in crate::image) fn diff_ids(&self) -> Result<Vec<Digest>> {
        if self.rootfs.diff_ids.len() > MAX_LAYERS {
            bail!("the image has more than {MAX_LAYERS} layers");
        }
        self.rootfs.diff_ids.iter().map(|text| Digest::parse(text)).collect()
    }

    /// The image that this config, whose digest is `id`, describes.
    pub(in crate::image) fn into_image(self, id: &Digest) -> Image {
        let platform = self.platform();
        let config = self.config.unwrap_or_default();
        Image {
            id: id.to_string(),
            platform,
            layers: self.rootfs.diff_ids,
            defaults: Defaults {
                env: config.env.unwrap_or_default(),
                entrypoint: config.entrypoint.unwrap_or_default(),
                command: config.cmd.unwrap_or_default(),
                user: config.user.unwrap_or_default(),
                workdir: config.working_dir.unwrap_or_default(),
                volumes: config.volumes.unwrap_or_default().into_keys().collect(),
                stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
                labels: config.labels.unwrap_or_default(),
                exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
                healthcheck: config.healthcheck,
                shell: config.shell.unwrap_or_default(),
            },
        }
    }
}

/// Layers that a config names, however damaged it may be otherwise.
pub(in crate::image) fn layers_of(bytes: &[u8]) -> Vec<Digest> {
    #[derive(Deserialize)]
    struct Rooted {
        rootfs: RootFs,
    }
    let config: Option<Rooted> = serde_json::from_slice(bytes).ok();
    config
        .map(|config| config.rootfs.diff_ids)
        .unwrap_or_default()
        .iter()
        .filter_map(|id| Digest::parse(id).ok())
        .collect()
}

/// The config of an image made of one plain root file system.
#[derive(Debug, Serialize)]
struct Synthesised<'a> {
    architecture: &'a str,
    os: &'a str,
    created: &'a str,
    config: SynthesisedRuntime<'a>,
    rootfs: RootFs,
    history: [History<'a>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SynthesisedRuntime<'a> {
    env: [&'a str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<[&'a str; 1]>,
}

#[derive(Debug, Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: String,
}

/// What the command of an image without a config is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Shell {
    /// It has `/bin/sh`: the command is `sh`.
    Present,
    /// It has none: the user must name a command.
    Absent,
}

/// Bytes of a config for the single layer `diff_id`, which came from the file `source`.
pub(in crate::image) fn synthesise(
    diff_id: &Digest,
    created: jiff::Timestamp,
    shell: Shell,
    source: &str,
) -> Result<Vec<u8>> {
    let created = created.to_string();
    let config = Synthesised {
        architecture: architecture(),
        os: "linux",
        created: &created,
        config: SynthesisedRuntime {
            env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            cmd: (shell == Shell::Present).then_some(["sh"]),
        },
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id.to_string()] },
        history: [History { created: &created, created_by: format!("mydocker: bundled {source}") }],
    };
    serde_json::to_vec(&config).context("encode image config")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_fine() {
        let config = ConfigFile::parse(
            br#"{"os":"linux","x":1,"config":{"Env":null,"Cmd":["a"],"Volumes":{"/v":{}},"User":"1:2",
                "ExposedPorts":{"80/tcp":{}},"Labels":{"k":"v"},"StopSignal":"","WorkingDir":"/w","Entrypoint":["e"]},
                "rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let defaults = config.into_image(&Digest::of(b"")).defaults;
        assert_eq!(defaults.command, ["a"]);
        assert_eq!(defaults.entrypoint, ["e"]);
        assert_eq!(defaults.volumes, ["/v"]);
        assert_eq!(defaults.exposed_ports, ["80/tcp"]);
        assert_eq!(defaults.labels["k"], "v");
        assert_eq!((defaults.user.as_str(), defaults.workdir.as_str()), ("1:2", "/w"));
        assert_eq!(defaults.stop_signal, None);
    }

    #[test]
    fn health_checks_are_read_as_docker_writes_them() {
        let config = ConfigFile::parse(
            br#"{"config":{"Healthcheck":{"Test":["CMD-SHELL","a b"],"Interval":5000000000,"Retries":2},
                "Shell":["/bin/ash","-c"]},"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        let defaults = config.into_image(&Digest::of(b"")).defaults;
        let test = Some(vec!["CMD-SHELL".to_owned(), "a b".to_owned()]);
        let expected = Healthcheck { test, interval: 5_000_000_000, retries: 2, ..Healthcheck::default() };
        assert_eq!(defaults.healthcheck, Some(expected));
        assert_eq!(defaults.shell, ["/bin/ash", "-c"]);
        let none = br#"{"config":{"Healthcheck":null,"Shell":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let defaults = ConfigFile::parse(none).unwrap().into_image(&Digest::of(b"")).defaults;
        assert_eq!((defaults.healthcheck, defaults.shell), (None, Vec::new()));
    }

    #[test]
    fn malformed_configs_are_clean_errors() {
        let nested = format!("{{\"x\":{}", "[".repeat(100_000));
        for text in [
            "",
            "[]",
            "{}",
            r#"{"rootfs":{"diff_ids":["sha256:../.."]}}"#,
            r#"{"rootfs":{"diff_ids":["x"]}}"#,
            r#"{"rootfs":{"type":"zip","diff_ids":[]}}"#,
            r#"{"os":"windows","rootfs":{"diff_ids":[]}}"#,
            r#"{"config":{"Cmd":"sh"},"rootfs":{"diff_ids":[]}}"#,
            &nested,
        ] {
            assert!(ConfigFile::parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(60)]);
        }
    }
}
