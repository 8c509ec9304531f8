//! Processes of the machine, as `/proc` shows them.

use std::fs;

use rustix::process::Pid;

/// Every process with a command line: its pid and the arguments joined by blanks.
pub fn all() -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile is none.
        let Ok(text) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&text).replace('\0', " ").trim().to_owned();
        if !line.is_empty() {
            found.push((pid, line));
        }
    }
    found
}

/// The shim of the container called `name`.
pub fn shim_of(name: &str) -> Option<Pid> {
    let title = format!("mydocker: shim {name}");
    let (pid, _) = all().into_iter().find(|(_, line)| *line == title)?;
    Pid::from_raw(pid)
}

/// Whether the process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which may itself hold parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
