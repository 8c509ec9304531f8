//! Paths inside a container.

use anyhow::Result;

use crate::error::Failure;

/// A clean absolute path inside the container: no `.`, no `..`, no double slash.
pub(super) fn absolute(path: &str, what: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Failure::usage(format!("invalid {what} {path:?}: it must be an absolute path")).into());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn paths_inside_are_clean() {
        assert_eq!(absolute("/a//b/../c/./", "x").unwrap(), "/a/c");
        assert_eq!(absolute("/../..", "x").unwrap(), "/");
        absolute("a", "x").unwrap_err();
    }
}
