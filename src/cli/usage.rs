//! `system df`: Docker's four rows, and two that make them add up to what du(1) says: what nobody uses, and
//! the engine's own records. Sizes are rounded for people; `Bytes` of `--format` is exact.

use anyhow::Result;
use clap::ArgMatches;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::output::printable;
use super::quantity::{human_size, human_sum};
use super::spec::{self, Arity, Spec};
use super::table::short_id;
use super::template::{self, Format, Row};
use super::{Session, image, output, ps};
use crate::engine::usage::{ContainerUsage, DiskUsage, ImageUsage, VolumeUsage};

pub(super) static DF: Spec = Spec {
    name: "df",
    usage: "[OPTIONS]",
    about: "Show disk usage",
    arity: Arity::exactly(0),
    raw_operands: false,
    legacy_options: false,
    unsupported: &[],
    flags: |command| {
        command
            .arg(spec::value(
                "format",
                None,
                "string",
                "Format output: 'table', 'table TEMPLATE', 'json' or a Go template",
            ))
            .arg(spec::switch("verbose", Some('v'), "Show detailed information on space usage"))
    },
    run: df,
};

const HEADERS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Bytes", "BYTES"),
    ("ReclaimableBytes", "RECLAIMABLE BYTES"),
];
const TABLE: &str = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

fn df(session: &Session, matches: &ArgMatches) -> Result<i32> {
    let given = spec::text(matches, "format").filter(|format| !format.is_empty());
    let usage = session.engine()?.disk_usage()?;
    let now = Timestamp::now();
    if !spec::is_set(matches, "verbose") {
        let format = Format::parse(given.as_deref(), TABLE);
        output::print(&template::render(&format, HEADERS, &rows(&usage))?)?;
        return Ok(0);
    }
    match given.filter(|format| format != "table") {
        Some(format) => output::print_line(&template::render_object(&format, &document(&usage, now))?)?,
        None => output::print(&sections(&usage, now)?)?,
    }
    Ok(0)
}

/// How many objects of a kind there are, how many are in use, and what they occupy.
struct Kind {
    name: &'static str,
    total: String,
    active: String,
    bytes: u64,
    reclaimable: u64,
}

fn rows(usage: &DiskUsage) -> Vec<Row> {
    let active = |count: usize| count.to_string();
    let mut kinds = vec![
        Kind {
            name: "Images",
            total: usage.images.len().to_string(),
            active: active(usage.images.iter().filter(|image| image.containers > 0).count()),
            bytes: usage.images_total,
            reclaimable: usage.images_reclaimable,
        },
        Kind {
            name: "Containers",
            total: usage.containers.len().to_string(),
            active: active(usage.containers.iter().filter(|container| container.active).count()),
            bytes: usage.containers_total(),
            reclaimable: usage.containers_reclaimable(),
        },
        Kind {
            name: "Local Volumes",
            total: usage.volumes.len().to_string(),
            active: active(usage.volumes.iter().filter(|volume| volume.links > 0).count()),
            bytes: usage.volumes_total(),
            reclaimable: usage.volumes_reclaimable(),
        },
        Kind { name: "Build Cache", total: "0".into(), active: "0".into(), bytes: 0, reclaimable: 0 },
    ];
    if !usage.orphans.is_empty() {
        kinds.push(Kind {
            name: "Orphaned",
            total: usage.orphans.len().to_string(),
            active: "0".into(),
            bytes: usage.orphans_total(),
            reclaimable: usage.orphans_reclaimable(),
        });
    }
    // Not Docker's: without it the rows would not make what du says.
    kinds.push(Kind { name: "Records", total: "-".into(), active: "-".into(), bytes: usage.records, reclaimable: 0 });
    let row = |kind: &Kind| {
        // As Docker: a share of nothing is not told.
        let share = (kind.reclaimable * 100).checked_div(kind.bytes).map(|share| format!(" ({share}%)"));
        Row::default()
            .with("Type", kind.name)
            .with("TotalCount", &kind.total[..])
            .with("Active", &kind.active[..])
            .with("Size", human_sum(kind.bytes))
            .with("Reclaimable", format!("{}{}", human_sum(kind.reclaimable), share.unwrap_or_default()))
            .with("Bytes", kind.bytes.to_string())
            .with("ReclaimableBytes", kind.reclaimable.to_string())
    };
    kinds.iter().map(row).collect()
}

const IMAGE_HEADERS: &[(&str, &str)] = &[
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];
const IMAGE_TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
                           {{.UniqueSize}}\t{{.Containers}}";
const CONTAINER_TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const VOLUME_HEADERS: &[(&str, &str)] = &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];
const ORPHAN_HEADERS: &[(&str, &str)] =
    &[("Kind", "KIND"), ("Name", "NAME"), ("Size", "SIZE"), ("Path", "PATH"), ("Reclaimable", "RECLAIMABLE")];

/// Docker's sections, then orphans where there are any, and the line that everything adds up to.
fn sections(usage: &DiskUsage, now: Timestamp) -> Result<String> {
    let table = |template: &str| Format::Table(template.to_owned());
    let fields = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let row = |value: &Value, headers: &[(&str, &str)]| {
        headers.iter().fold(Row::default(), |row, (name, _)| row.with(name, fields(value, name)))
    };
    let rows = |values: Vec<Value>, headers: &[(&str, &str)]| -> Vec<Row> {
        values.iter().map(|value| row(value, headers)).collect()
    };
    let mut text = String::from("Images space usage:\n\n");
    let mut images = images(usage, now);
    for image in &mut images {
        image["ID"] = short_id(image["ID"].as_str().unwrap_or_default(), true).into();
    }
    text.push_str(&template::render(&table(IMAGE_TABLE), IMAGE_HEADERS, &rows(images, IMAGE_HEADERS))?);
    text.push_str("\nContainers space usage:\n\n");
    let containers: Vec<Row> = usage
        .containers
        .iter()
        .map(|container| ps::row(&container.summary, now, true).with("Size", human_size(container.bytes)))
        .collect();
    text.push_str(&template::render(&table(CONTAINER_TABLE), ps::HEADERS, &containers)?);
    text.push_str("\nLocal Volumes space usage:\n\n");
    let columns = "{{.Name}}\t{{.Links}}\t{{.Size}}";
    text.push_str(&template::render(&table(columns), VOLUME_HEADERS, &rows(volumes(usage), VOLUME_HEADERS))?);
    text.push_str(
        "\nBuild cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
    );
    if !usage.orphans.is_empty() {
        text.push_str("\nOrphaned space usage:\n\n");
        let columns = "{{.Kind}}\t{{.Size}}\t{{.Reclaimable}}\t{{.Path}}";
        text.push_str(&template::render(&table(columns), ORPHAN_HEADERS, &rows(orphans(usage), ORPHAN_HEADERS))?);
    }
    text.push_str(&format!("\nRecords: {}\nTotal: {}\n", human_sum(usage.records), human_sum(usage.total())));
    Ok(text)
}

/// Everything, under Docker's names, for `-v --format`.
fn document(usage: &DiskUsage, now: Timestamp) -> Value {
    // What `ps` tells of them, uncut.
    let container = |container: &ContainerUsage| -> Value {
        let row = ps::row(&container.summary, now, false).with("Size", human_size(container.bytes));
        ps::HEADERS.iter().map(|(name, _)| ((*name).to_owned(), Value::from(row.text(name)))).collect()
    };
    json!({
        "Images": images(usage, now),
        "Containers": usage.containers.iter().map(container).collect::<Vec<_>>(),
        "Volumes": volumes(usage),
        "BuildCache": [],
        "Orphans": orphans(usage),
        "Records": human_sum(usage.records),
        "Total": human_sum(usage.total()),
        "TotalBytes": usage.total(),
    })
}

/// Sizes are those on disk, compressed layers and documents included: more than `images` shows.
fn images(usage: &DiskUsage, now: Timestamp) -> Vec<Value> {
    let value = |image: &ImageUsage| {
        let summary = crate::engine::images::ImageSummary {
            references: image.references.clone(),
            digests: image.digests.clone(),
            ..Default::default()
        };
        // One row an image, as Docker has it here.
        let name = image::names(&summary, image::Digests::Hidden).swap_remove(0);
        let digest = image.digests.first().and_then(|name| name.split_once('@'));
        let (since, at) = image::created(image.created, now);
        json!({
            "Repository": name.repository,
            "Tag": name.tag,
            "Digest": digest.map(|(_, digest)| digest).unwrap_or_default(),
            "ID": image.id,
            "CreatedSince": since,
            "CreatedAt": at,
            "Size": human_size(image.total),
            "VirtualSize": human_size(image.total),
            "SharedSize": human_size(image.shared),
            "UniqueSize": human_size(image.total - image.shared),
            "Containers": image.containers.to_string(),
        })
    };
    usage.images.iter().map(value).collect()
}

fn volumes(usage: &DiskUsage) -> Vec<Value> {
    let value = |volume: &VolumeUsage| {
        json!({
            "Name": volume.name,
            "Links": volume.links.to_string(),
            "Size": human_size(volume.bytes),
            "Mountpoint": volume.path.join("_data").display().to_string(),
            // There are no others.
            "Driver": "local",
            "Scope": "local",
            "Labels": "",
        })
    };
    usage.volumes.iter().map(value).collect()
}

/// Names and paths are anybody's, so they are made printable before they come into a table or a template.
fn orphans(usage: &DiskUsage) -> Vec<Value> {
    let value = |orphan: &crate::engine::usage::OrphanUsage| {
        json!({
            "Kind": orphan.kind,
            "Name": printable(&orphan.name),
            "Size": human_size(orphan.bytes),
            "Path": printable(&orphan.path.display().to_string()),
            "Reclaimable": if orphan.is_reclaimable() { "yes" } else { "no" },
        })
    };
    usage.orphans.iter().map(value).collect()
}
