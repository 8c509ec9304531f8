//! Registries that serve only who has a certificate (mutual TLS): `certs.d/HOST/{NAME.cert,NAME.key}`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::ours_only;
use crate::support::registry::{Options, Registry};
use crate::support::{Output, Sandbox};

/// An authority of clients (`ca.crt`), and a certificate by it (`NAME.cert`, `NAME.key`).
fn clients(directory: &Path, name: &str) {
    let run = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(directory).output().expect("run openssl");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let request = |extra: &[&str]| run(&[&["req"][..], &key, extra].concat());
    request(&["-x509", "-days", "2", "-subj", "/CN=clients", "-keyout", "ca.key", "-out", "ca.crt"]);
    let (certificate, key, signing) = (format!("{name}.cert"), format!("{name}.key"), format!("{name}.csr"));
    request(&["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &signing]);
    // Of version 3, as all but the oldest are.
    fs::write(directory.join("use"), "extendedKeyUsage=clientAuth\n").unwrap();
    run(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &signing,
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "use",
        "-out",
        &certificate,
    ]);
}

fn pull(s: &Sandbox, image: &str) -> Output {
    let settings = s.host_file("etc/config.toml", "registry-timeout = 10\n");
    s.command(["pull", "-q", image]).env("MYDOCKER_CONFIG", &settings).run().cleanly()
}

/// docker-registry has no way of being filled but over TLS with a certificate, which skopeo has as well.
fn fill(s: &Sandbox, registry: &Registry, directory: &Path, name: &str) {
    let layout = s.host_dir("layout");
    crate::support::registry::write_layout(
        Path::new(&layout),
        &[crate::support::archive::Layer::busybox().file("marker", 0o644, "guarded").bytes()],
    );
    let skopeo = s.host_dir("skopeo");
    for (from, to) in [(format!("{name}.cert"), "client.cert"), (format!("{name}.key"), "client.key")] {
        fs::copy(directory.join(from), format!("{skopeo}/{to}")).unwrap();
    }
    let output = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-cert-dir", &skopeo])
        .args([format!("oci:{layout}"), format!("docker://{}", registry.image("box:latest"))])
        .output()
        .expect("run skopeo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_registry_is_shown_the_certificate_that_is_laid_down_for_it() {
    ours_only!("Docker's daemon lives in another network namespace");
    let s = Sandbox::new();
    let (directory, others) = (s.host_dir("clients"), s.host_dir("others"));
    let (directory, others) = (Path::new(&directory), Path::new(&others));
    clients(directory, "ann");
    clients(others, "eve");
    let authority = directory.join("ca.crt");
    // On loopback, which is trusted without certificates, and elsewhere.
    for address in ["10.99.0.6", "127.0.0.1"] {
        let options = Options { address, tls: true, clients: Some(&authority), ..Options::default() };
        let registry = Registry::start(&s, options);
        fill(&s, &registry, directory, "ann");
        let name = registry.image("box");
        let place = s.host_dir(&format!("etc/certs.d/{}", registry.address()));
        let put = |from: &Path, to: &str| _ = fs::copy(from, format!("{place}/{to}")).unwrap();
        put(&registry.authority(), "ca.crt");
        let none = pull(&s, &name).code(1);
        none.says("wants a client certificate")
            .says(&format!("put client.cert and client.key into /etc/mydocker/certs.d/{}/", registry.address()));
        put(&others.join("eve.cert"), "eve.cert");
        pull(&s, &name).code(1).says("eve.cert lacks its counterpart");
        put(&directory.join("ann.key"), "eve.key");
        pull(&s, &name).code(1).says("do not fit together");
        put(&others.join("eve.key"), "eve.key");
        pull(&s, &name).code(1).says("remote error: tls:").says(registry.address());
        for file in ["eve.cert", "eve.key"] {
            fs::remove_file(format!("{place}/{file}")).unwrap();
        }
        put(&directory.join("ann.cert"), "ann.cert");
        put(&directory.join("ann.key"), "ann.key");
        pull(&s, &name).code(0);
        let show = ["run", "--rm", "--network", "none", "--pull", "never", &name, "cat", "/marker"];
        assert_eq!(s.ok(show), "guarded");
        // A push shows it as well.
        let pushed = s.host("etc/config.toml");
        s.ok(["tag", &name, &registry.image("again")]);
        s.command(["push", "-q", &registry.image("again")]).env("MYDOCKER_CONFIG", &pushed).run().cleanly().code(0);
        s.ok(["rmi", "-f", &name]);
        s.ok(["rmi", "-f", &registry.image("again")]);
    }
}
