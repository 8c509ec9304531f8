//! `images`: which are there, and which of them are asked for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use jiff::Timestamp;

use super::glob::Glob;
use super::{ImageSummary, no_such_image};
use crate::engine::Engine;
use crate::image::Store;
use crate::image::oci::reference::Reference;

/// One `--filter`. Names are alternatives, all others must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFilter {
    /// It has no tag (`true`), or has one.
    Dangling(bool),
    /// The label exists, with this value if one is given.
    Label(String, Option<String>),
    /// The label does not exist, or not with this value.
    NotLabel(String, Option<String>),
    /// Built before this image.
    Before(String),
    /// Built after this image.
    Since(String),
    /// Built before this moment.
    Until(Timestamp),
    /// One of its names matches, with the tag or without; others are not shown.
    Reference(Glob),
}

impl ImageFilter {
    /// Reads `key=value`; the error says what is wrong. `moment` reads a time or a distance from now.
    pub fn parse(text: &str, moment: impl Fn(&str) -> Option<Timestamp>) -> Result<ImageFilter, String> {
        let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let label = |kind: fn(String, Option<String>) -> ImageFilter| match value.split_once('=') {
            Some((name, value)) => kind(name.to_owned(), Some(value.to_owned())),
            None => kind(value.to_owned(), None),
        };
        match key.as_str() {
            "dangling" => match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => Ok(ImageFilter::Dangling(true)),
                "false" | "0" | "f" => Ok(ImageFilter::Dangling(false)),
                _ => Err(format!("invalid filter 'dangling={value}'")),
            },
            "label" => Ok(label(ImageFilter::Label)),
            "label!" => Ok(label(ImageFilter::NotLabel)),
            "before" => Ok(ImageFilter::Before(value.to_owned())),
            "since" => Ok(ImageFilter::Since(value.to_owned())),
            "until" => moment(value).map(ImageFilter::Until).ok_or_else(|| {
                format!("invalid filter 'until={value}': write a time (2013-01-02T13:23:37Z) or a duration (42m)")
            }),
            "reference" => ImageFilter::reference(value),
            _ => Err(format!("invalid filter '{key}'")),
        }
    }

    /// The filter that `images NAME` is short for.
    pub fn reference(pattern: &str) -> Result<ImageFilter, String> {
        Glob::parse(pattern)
            .map(ImageFilter::Reference)
            .map_err(|why| format!("invalid filter 'reference={pattern}': {why}"))
    }
}

/// What is to be listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageListRequest {
    /// What they must be like.
    pub filters: Vec<ImageFilter>,
    /// Tell who uses them, and how much of them others share: reads containers' records as well.
    pub usage: bool,
}

/// An image in the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedImage {
    /// What it is; names that were not asked for are left out.
    pub image: ImageSummary,
    /// Who uses it, where that was asked.
    pub usage: Option<SharedUse>,
}

/// What an image shares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedUse {
    /// Names of the containers made from it.
    pub containers: Vec<String>,
    /// Bytes of layers that other images have as well.
    pub shared: u64,
    /// Its layers, lowest first.
    pub layers: Vec<LayerUse>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUse {
    /// `sha256:…`.
    pub diff_id: String,
    /// Bytes of its files.
    pub size: u64,
    /// Other images that have it.
    pub others: usize,
}

impl Engine {
    /// Images, newest first.
    ///
    /// # Errors
    /// A filter that names an image that is not there; see [`Store::list`].
    pub fn image_list(&self, request: &ImageListRequest) -> Result<Vec<ListedImage>> {
        let store = Store::open(&self.layout);
        let bounds = request.filters.iter().map(|filter| Bound::of(&store, filter)).collect::<Result<Vec<_>>>()?;
        let all = store.list()?;
        let mut users = BTreeMap::new();
        let mut layers: BTreeMap<String, usize> = BTreeMap::new();
        if request.usage {
            for (image, name) in self.images_of_containers()? {
                users.entry(image).or_insert_with(Vec::new).push(name);
            }
            for image in &all {
                let distinct: BTreeSet<&String> = image.layers.iter().collect();
                distinct.into_iter().for_each(|layer| *layers.entry(layer.clone()).or_default() += 1);
            }
        }
        let mut listed = Vec::new();
        for mut image in all {
            if !passes(&request.filters, &bounds, &mut image) {
                continue;
            }
            let usage = request.usage.then(|| {
                let of = |diff_id: &String| LayerUse {
                    diff_id: diff_id.clone(),
                    size: store.size_of_layer(diff_id),
                    others: layers.get(diff_id).map_or(0, |count| count - 1),
                };
                let layers: Vec<LayerUse> = image.layers.iter().map(of).collect();
                let shared = layers.iter().filter(|layer| layer.others > 0).map(|layer| layer.size).sum();
                SharedUse { containers: users.remove(&image.id).unwrap_or_default(), shared, layers }
            });
            listed.push(ListedImage { image, usage });
        }
        Ok(listed)
    }
}

/// What a filter's image says.
enum Bound {
    None,
    Before(Option<Timestamp>),
    Since(Option<Timestamp>),
}

impl Bound {
    fn of(store: &Store, filter: &ImageFilter) -> Result<Bound> {
        let created = |text: &str| match store.summary(text)? {
            Some(image) => Ok(image.created),
            None => Err(no_such_image(text)),
        };
        Ok(match filter {
            ImageFilter::Before(text) => Bound::Before(created(text)?),
            ImageFilter::Since(text) => Bound::Since(created(text)?),
            ImageFilter::Until(moment) => Bound::Before(Some(*moment)),
            _ => Bound::None,
        })
    }
}

/// Whether an image is asked for; takes those names away that are not.
fn passes(filters: &[ImageFilter], bounds: &[Bound], image: &mut ImageSummary) -> bool {
    let patterns: Vec<&Glob> = filters
        .iter()
        .filter_map(|filter| match filter {
            ImageFilter::Reference(pattern) => Some(pattern),
            _ => None,
        })
        .collect();
    if !patterns.is_empty() {
        let wanted = |name: &String| {
            let bare = name.parse::<Reference>().map_or_else(|_| name.clone(), |parsed| parsed.familiar_name());
            patterns.iter().any(|pattern| pattern.matches(name) || pattern.matches(&bare))
        };
        image.references.retain(wanted);
        image.digests.retain(wanted);
        if image.references.is_empty() && image.digests.is_empty() {
            return false;
        }
    }
    let has = |name: &String, value: &Option<String>| {
        image.labels.get(name).is_some_and(|have| value.as_ref().is_none_or(|value| have == value))
    };
    let plain = filters.iter().all(|filter| match filter {
        ImageFilter::Dangling(true) => image.references.is_empty(),
        // As Docker has it: one that is known by a digest alone is neither of the two.
        ImageFilter::Dangling(false) => !image.references.is_empty() || !image.digests.is_empty(),
        ImageFilter::Label(name, value) => has(name, value),
        ImageFilter::NotLabel(name, value) => !has(name, value),
        _ => true,
    });
    plain
        && bounds.iter().all(|bound| match bound {
            Bound::None => true,
            Bound::Before(moment) => image.created < *moment && image.created.is_some(),
            Bound::Since(moment) => image.created > *moment,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> ImageFilter {
        ImageFilter::parse(text, |_| None).unwrap()
    }

    fn image() -> ImageSummary {
        ImageSummary {
            references: vec!["a/b:1".into(), "busybox:latest".into()],
            digests: vec![format!("busybox@sha256:{}", "0".repeat(64))],
            created: Some("2024-01-01T00:00:00Z".parse().unwrap()),
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            ..ImageSummary::default()
        }
    }

    /// The names that are left, or that the image is not asked for.
    fn left(filters: &[&str]) -> Option<Vec<String>> {
        let mut image = image();
        let filters: Vec<ImageFilter> = filters.iter().map(|text| filter(text)).collect();
        passes(&filters, &[], &mut image).then_some(image.references)
    }

    #[test]
    fn names_are_alternatives_and_others_must_all_hold() {
        let both = Some(vec!["a/b:1".to_owned(), "busybox:latest".to_owned()]);
        assert_eq!(left(&[]), both);
        assert_eq!(left(&["reference=busybox"]), Some(vec!["busybox:latest".to_owned()]));
        assert_eq!(left(&["reference=busy*:late*"]), Some(vec!["busybox:latest".to_owned()]));
        assert_eq!(left(&["reference=*"]), Some(vec!["busybox:latest".to_owned()]));
        assert_eq!(left(&["reference=*/*", "reference=busybox"]), both);
        assert_eq!(left(&["reference=other"]), None);
        assert_eq!(left(&["label=k", "label=k=v"]), both);
        assert_eq!(left(&["label=k", "label=k=w"]), None);
        assert_eq!(left(&["label!=k"]), None);
        assert_eq!(left(&["label!=k=w"]), both);
        assert_eq!(left(&["dangling=true"]), None);
        assert_eq!(left(&["dangling=0"]), both);
    }

    #[test]
    fn wrong_filters_say_why() {
        for (text, message) in [
            ("x=1", "invalid filter 'x'"),
            ("dangling=maybe", "invalid filter 'dangling=maybe'"),
            ("dangling", "bad format of filter (expected name=value)"),
            ("reference=[", "invalid filter 'reference=[': syntax error in pattern"),
        ] {
            assert_eq!(ImageFilter::parse(text, |_| None).unwrap_err(), message);
        }
        assert!(ImageFilter::parse("until=x", |_| None).unwrap_err().starts_with("invalid filter 'until=x'"));
    }
}
