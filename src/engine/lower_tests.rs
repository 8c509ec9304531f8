//! Golden files: what a container gets, step by step, for a few configs. Review a change with
//! `cargo insta review`, or read the diff that the failing test prints.

use std::path::PathBuf;

use super::*;
use crate::cgroup::Hierarchy;
use crate::container::sample::config;
use crate::container::{Namespaces, Ulimit};
use crate::runtime::plan;

fn hybrid() -> Cgroups {
    let hierarchy =
        |name: &str| Hierarchy { controllers: vec![name.into()], mount: PathBuf::from("/sys/fs/cgroup").join(name) };
    Cgroups { mode: CgroupMode::Hybrid, v1: vec![hierarchy("memory"), hierarchy("pids")], v2: None }
}

fn plan_of(config: &Config, cgroups: &Cgroups) -> String {
    let layout = Layout::new(Some("/data".into()));
    let Lowered { spec, launch, .. } = lower(&layout, config, cgroups).unwrap();
    let plan = plan::lower(&spec, &launch).unwrap();
    let lines: Vec<String> = plan.init.steps.iter().map(|step| serde_json::to_string(step).unwrap()).collect();
    format!("namespaces: {:?}\n{}", plan::namespace_names(plan.namespaces), lines.join("\n"))
}

#[test]
fn a_plain_container() {
    insta::assert_snapshot!(plan_of(&config(), &hybrid()));
}

#[test]
fn a_terminal_on_a_unified_host() {
    let mut config = config();
    config.process.tty = true;
    let unified = Cgroups { mode: CgroupMode::V2, v1: vec![], v2: Some("/sys/fs/cgroup".into()) };
    insta::assert_snapshot!(plan_of(&config, &unified));
}

#[test]
fn everything_confined() {
    let mut config = config();
    config.auto_remove = true;
    config.read_only = true;
    config.process.user = "app:staff".into();
    config.process.group_add = vec!["audio".into()];
    config.process.workdir = "/srv/app".into();
    config.security.cap_drop = vec!["ALL".into()];
    config.security.cap_add = vec!["NET_BIND_SERVICE".into()];
    config.security.no_new_privileges = true;
    config.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into();
    config.ulimits = vec![Ulimit { name: "nofile".into(), soft: 64, hard: u64::MAX }];
    config.tmpfs = vec![Tmpfs { target: "/tmp".into(), options: "size=1m,exec".into() }];
    let mount = |source, target: &str, read_only| Mount {
        source,
        target: target.into(),
        read_only,
        propagation: None,
        mode: String::new(),
    };
    config.mounts = vec![
        mount(MountSource::Host("/host".into()), "/data", true),
        mount(MountSource::Volume { name: "v1".into(), anonymous: false, copy: true }, "/srv/app/state", false),
    ];
    insta::assert_snapshot!(plan_of(&config, &hybrid()));
}

#[test]
fn everything_of_the_host() {
    let mut config = config();
    config.namespaces = Namespaces {
        pid: NamespaceMode::Host,
        ipc: NamespaceMode::Host,
        uts: NamespaceMode::Host,
        network: NetworkMode::Host,
    };
    config.security.unconfined_paths = true;
    insta::assert_snapshot!(plan_of(&config, &hybrid()));
}
