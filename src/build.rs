//! Build script: bakes commit, build time and compiler version into the binary for `version`.

use std::process::Command;

fn main() {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success());
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_else(|| "unknown".into())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    println!("cargo::rustc-env=MYDOCKER_COMMIT={}", output("git", &["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=MYDOCKER_BUILD_TIME={}", output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]));
    println!("cargo::rustc-env=MYDOCKER_RUSTC={}", output(&rustc, &["--version"]));
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    println!("cargo::rerun-if-changed=src/build.rs");
}
