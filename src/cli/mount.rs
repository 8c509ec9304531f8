//! `-v`, `--mount`, `--tmpfs`: strings to mounts.

use std::path::{Component, Path};

use super::spec::parse_boolean;
use crate::container::{Mount, MountSource, Tmpfs};

/// What `--mount` may say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    /// A bind mount or a volume.
    Mount(Mount),
    /// A tmpfs.
    Tmpfs(Tmpfs),
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`. A relative source (`./x`) is resolved against `directory`.
pub(super) fn parse_volume(text: &str, directory: &Path) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [target, options] if !options.starts_with('/') && is_options(options) => ("", *target, *options),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err("it has too many colons: write [SOURCE:]TARGET[:OPTIONS]".to_owned()),
    };
    if parts.len() > 1 && parts.iter().any(|part| part.is_empty()) {
        return Err("a part between colons is empty: write [SOURCE:]TARGET[:OPTIONS]".to_owned());
    }
    let source = volume_source(source, directory)?;
    let mut mount =
        Mount { source, target: target_path(target)?, read_only: false, propagation: None, mode: String::new() };
    apply_options(&mut mount, options)?;
    Ok(mount)
}

fn volume_source(source: &str, directory: &Path) -> Result<MountSource, String> {
    if source.starts_with('/') {
        return Ok(MountSource::Host(clean(source)));
    }
    if matches!(source, "." | "..") || source.starts_with("./") || source.starts_with("../") {
        let path = directory.join(source);
        let path = path.to_str().ok_or("the current directory's name is not valid UTF-8")?;
        return Ok(MountSource::Host(clean(path)));
    }
    if !source.is_empty() {
        check_name(source)?;
    }
    Ok(MountSource::Volume { name: source.to_owned(), anonymous: source.is_empty(), copy: true })
}

/// Docker's rule for volume names.
fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && (2..=255).contains(&name.len()) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no volume name ([a-zA-Z0-9][a-zA-Z0-9_.-]+); a host directory is given by its absolute path"
    ))
}

fn target_path(target: &str) -> Result<String, String> {
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    match clean(target).as_str() {
        "/" => Err("destination can't be '/'".to_owned()),
        path => Ok(path.to_owned()),
    }
}

/// The shortest way to write an absolute path, by its text alone.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

fn is_options(text: &str) -> bool {
    let known = |word: &str| {
        matches!(word, "ro" | "rw" | "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated")
            || PROPAGATIONS.contains(&word)
    };
    !text.is_empty() && text.split(',').all(known)
}

fn apply_options(mount: &mut Mount, options: &str) -> Result<(), String> {
    if options.is_empty() {
        return Ok(());
    }
    if !is_options(options) {
        return Err(format!("invalid mode: {options}"));
    }
    let mut others = Vec::new();
    let (mut access, mut label) = (false, false);
    for word in options.split(',') {
        match (word, &mut mount.source) {
            ("ro" | "rw", _) if access => return Err(format!("invalid mode: {options}: ro or rw once")),
            ("ro" | "rw", _) => {
                access = true;
                mount.read_only = word == "ro";
            }
            ("z" | "Z", _) if label => return Err(format!("invalid mode: {options}: z or Z once")),
            ("z" | "Z", _) => {
                label = true;
                others.push(word);
            }
            ("nocopy", MountSource::Volume { copy, .. }) => {
                *copy = false;
                others.push(word);
            }
            ("nocopy", MountSource::Host(_)) => {
                return Err("nocopy is for volumes, not for host directories".to_owned());
            }
            ("consistent" | "cached" | "delegated", _) => {}
            (_, MountSource::Volume { .. }) => return Err(format!("propagation {word} is for host directories")),
            (_, MountSource::Host(_)) if mount.propagation.is_some() => {
                return Err(format!("invalid mode: {options}: one propagation only"));
            }
            (_, MountSource::Host(_)) => mount.propagation = Some(word.to_owned()),
        }
    }
    mount.mode = others.join(",");
    Ok(())
}

/// `--tmpfs TARGET[:OPTIONS]`.
pub(super) fn parse_tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    Ok(Tmpfs { target: target_path(target)?, options: options.to_owned() })
}

/// `--mount type=bind,source=/a,target=/b,readonly`: comma-separated values with CSV quoting.
pub(super) fn parse_mount(text: &str, directory: &Path) -> Result<Parsed, String> {
    let fields = csv(text)?;
    let mut kind = "volume".to_owned();
    let (mut source, mut target) = (String::new(), String::new());
    let (mut read_only, mut copy, mut propagation) = (false, true, None);
    let mut tmpfs = Vec::new();
    let mut only: Vec<(&str, &str)> = Vec::new();
    for field in &fields {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let wanted = || value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"));
        let boolean = || match value {
            None => Ok(true),
            Some(value) => parse_boolean(value).ok_or_else(|| format!("invalid value for {key}: {value}")),
        };
        match key.as_str() {
            "type" => kind = wanted()?.to_ascii_lowercase(),
            "source" | "src" => source = wanted()?.to_owned(),
            "target" | "dst" | "destination" => target = wanted()?.to_owned(),
            "readonly" | "ro" => read_only = boolean()?,
            "consistency" => _ = wanted()?,
            "bind-propagation" => {
                let value = wanted()?;
                if !PROPAGATIONS.contains(&value) {
                    return Err(format!("invalid value for bind-propagation: {value}"));
                }
                propagation = Some(value.to_owned());
                only.push(("bind", "bind-propagation"));
            }
            "volume-nocopy" => {
                copy = !boolean()?;
                only.push(("volume", "volume-nocopy"));
            }
            "tmpfs-size" => {
                let value = wanted()?;
                let size = super::quantity::binary_size(value);
                tmpfs.push(format!("size={}", size.ok_or_else(|| format!("invalid value for tmpfs-size: {value}"))?));
                only.push(("tmpfs", "tmpfs-size"));
            }
            "tmpfs-mode" => {
                let value = wanted()?;
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                tmpfs.push(format!("mode={:o}", mode.ok_or_else(|| format!("invalid value for tmpfs-mode: {value}"))?));
                only.push(("tmpfs", "tmpfs-mode"));
            }
            "bind-nonrecursive" | "bind-recursive" | "volume-driver" | "volume-label" | "volume-opt"
            | "volume-subpath" | "image-subpath" | "bind-create-src" => {
                return Err(format!("option {key} is not supported yet"));
            }
            _ if value.is_none() => return Err(format!("invalid field '{field}' must be a key=value pair")),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if target.is_empty() {
        return Err("target is required".to_owned());
    }
    if let Some((wanted, key)) = only.iter().find(|(wanted, _)| *wanted != kind) {
        return Err(format!("{key} belongs to type={wanted}, not to type={kind}"));
    }
    let target = target_path(&target)?;
    let source = match kind.as_str() {
        "tmpfs" if !source.is_empty() => return Err("a tmpfs has no source".to_owned()),
        "tmpfs" => {
            tmpfs.extend(read_only.then(|| "ro".to_owned()));
            return Ok(Parsed::Tmpfs(Tmpfs { target, options: tmpfs.join(",") }));
        }
        "bind" if source.is_empty() => return Err("a bind mount needs source=PATH".to_owned()),
        "bind" => {
            let path = directory.join(&source);
            let path = clean(path.to_str().ok_or("the current directory's name is not valid UTF-8")?);
            // Docker's difference between -v, which makes a missing directory, and --mount.
            if !Path::new(&path).exists() {
                return Err(format!("bind source path does not exist: {path}"));
            }
            MountSource::Host(path)
        }
        "volume" if source.is_empty() => MountSource::Volume { name: String::new(), anonymous: true, copy },
        "volume" => {
            check_name(&source)?;
            MountSource::Volume { name: source, anonymous: false, copy }
        }
        "image" | "cluster" | "npipe" => return Err(format!("mount type {kind} is not supported")),
        _ => return Err(format!("mount type unknown: {kind:?} (bind, volume or tmpfs)")),
    };
    let mode = if copy { String::new() } else { "nocopy".to_owned() };
    Ok(Parsed::Mount(Mount { source, target, read_only, propagation, mode }))
}

/// One record of comma-separated values (RFC 4180).
pub(super) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut characters = text.chars().peekable();
    loop {
        if field.is_empty() && characters.peek() == Some(&'"') {
            characters.next();
            loop {
                match characters.next() {
                    Some('"') if characters.peek() == Some(&'"') => {
                        characters.next();
                        field.push('"');
                    }
                    Some('"') => break,
                    Some(character) => field.push(character),
                    None => return Err("a quote is not closed".to_owned()),
                }
            }
            if !matches!(characters.peek(), None | Some(',')) {
                return Err("a comma must follow the closing quote".to_owned());
            }
        }
        match characters.next() {
            Some(',') => fields.push(std::mem::take(&mut field)),
            Some('"') => return Err("a quote stands inside a field that does not begin with one".to_owned()),
            Some(character) => field.push(character),
            None => break,
        }
    }
    fields.push(field);
    if fields == [""] {
        return Err("it is empty".to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Mount {
        parse_volume(text, Path::new("/here")).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn shape(mount: &Mount) -> String {
        let source = match &mount.source {
            MountSource::Host(path) => format!("host {path}"),
            MountSource::Volume { name, anonymous: false, copy } => format!("volume {name} copy={copy}"),
            MountSource::Volume { copy, .. } => format!("anonymous copy={copy}"),
        };
        let access = if mount.read_only { "ro" } else { "rw" };
        let rest = format!("{} {}", mount.propagation.as_deref().unwrap_or("-"), mount.mode);
        format!("{source} -> {} {access} {}", mount.target, rest.trim())
    }

    #[test]
    fn volumes_as_docker_reads_them() {
        for (text, expected) in [
            ("/a:/b", "host /a -> /b rw -"),
            ("/a:/b:ro", "host /a -> /b ro -"),
            ("/a:/b:rw,Z,rshared", "host /a -> /b rw rshared Z"),
            ("/a//../x/:/b/", "host /x -> /b rw -"),
            ("./sub:/b", "host /here/sub -> /b rw -"),
            ("..:/b", "host / -> /b rw -"),
            ("data:/b", "volume data copy=true -> /b rw -"),
            ("data:/b:nocopy,ro", "volume data copy=false -> /b ro - nocopy"),
            ("/b", "anonymous copy=true -> /b rw -"),
            ("/b:ro", "anonymous copy=true -> /b ro -"),
        ] {
            assert_eq!(shape(&volume(text)), expected, "{text}");
        }
        for bad in [
            "",
            ":",
            "a",
            "/a:b",
            "/a:/",
            "/a:/b:xx",
            "/a:/b:ro,rw",
            "/a:/b:ro:x",
            "a/b:/c",
            "/a::ro",
            "d:/b:rshared",
            "/a:/b:nocopy",
        ] {
            assert!(parse_volume(bad, Path::new("/")).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_as_docker_reads_them() {
        let mount = |text: &str| match parse_mount(text, Path::new("/")).unwrap_or_else(|e| panic!("{text}: {e}")) {
            Parsed::Mount(mount) => shape(&mount),
            Parsed::Tmpfs(tmpfs) => format!("tmpfs {} {}", tmpfs.target, tmpfs.options),
        };
        for (text, expected) in [
            ("type=bind,source=/usr,target=/b,readonly", "host /usr -> /b ro -"),
            ("type=bind,src=/usr,dst=/b,ro=false,bind-propagation=rslave", "host /usr -> /b rw rslave"),
            ("\"type=bind\",src=/usr,\"destination=/b,c\"", "host /usr -> /b,c rw -"),
            ("source=data,target=/b,volume-nocopy", "volume data copy=false -> /b rw - nocopy"),
            ("type=volume,target=/b", "anonymous copy=true -> /b rw -"),
            ("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770", "tmpfs /t size=67108864,mode=1770"),
        ] {
            assert_eq!(mount(text), expected, "{text}");
        }
        for bad in [
            "",
            "x",
            "type=foo,target=/x",
            "type=bind,target=/x",
            "type=tmpfs,src=/a,target=/x",
            "target=x",
            "source=data",
            "type=bind,src=/no/such/path,target=/x",
            "target=/x,tmpfs-size=1",
            "target=/x,foo=1",
            "\"target=/x",
            "target=/x,ro=maybe",
        ] {
            assert!(parse_mount(bad, Path::new("/")).is_err(), "{bad}");
        }
    }
}
