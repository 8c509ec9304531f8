//! Registries: what the real one, Debian's `docker-registry`, answers.

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::registry::{Options, Registry};

/// The support that other tests stand on.
#[test]
fn registries_of_tests_serve_what_is_put_there() {
    ours_only!("Docker's daemon lives in another network namespace");
    let sandbox = Sandbox::new();
    let plain = Registry::start(&sandbox, Options::default());
    let options = Options { address: "10.99.0.1", tls: true, account: Some(("ann", "secret")), ..Options::default() };
    let guarded = Registry::start(&sandbox, options);
    plain.fill_busybox("a/b:1");
    assert!(plain.data().join("docker/registry/v2/repositories/a/b").is_dir());
    let status = std::process::Command::new("curl")
        .args(["-sS", "--fail", "-u", "ann:secret", "--cacert"])
        .arg(guarded.authority())
        .arg(format!("https://{}/v2/", guarded.address()))
        .output()
        .expect("run curl");
    assert!(status.status.success(), "{}\n{}", String::from_utf8_lossy(&status.stderr), guarded.log());
}
