//! A container for tests to begin with.

use super::{
    Attachment, Config, ContainerId, FORMAT_VERSION, ImageSource, LogOptions, Namespaces, Networking, Process,
    RestartPolicy, Security,
};

/// A shell on busybox, with the default of everything.
pub fn config() -> Config {
    let id = ContainerId::parse(&"c0ffee".repeat(11)[..64]).unwrap();
    Config {
        version: FORMAT_VERSION,
        name: "golden".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        image: ImageSource {
            name: "busybox".into(),
            id: "sha256:00".into(),
            layers: vec!["sha256:11".into(), "sha256:22".into()],
        },
        process: Process {
            entrypoint: vec![],
            command: vec!["sh".into()],
            env: vec!["PATH=/bin".into()],
            workdir: "/".into(),
            user: String::new(),
            group_add: vec![],
            tty: false,
            open_stdin: false,
            stdin_once: false,
            attach: Default::default(),
            shell: vec![],
        },
        namespaces: Namespaces::default(),
        networking: Networking {
            attachments: vec![Attachment { network: "bridge".into(), ..Attachment::default() }],
            ..Networking::default()
        },
        hostname: id.short().into(),
        domainname: String::new(),
        mounts: vec![],
        tmpfs: vec![],
        read_only: false,
        shm_size: 64 << 20,
        extra_hosts: vec![],
        sysctls: Default::default(),
        ulimits: vec![],
        resources: Default::default(),
        cgroup_parent: String::new(),
        cgroup_driver: super::CgroupDriver::Cgroupfs,
        cgroup_namespace: None,
        devices: vec![],
        device_rules: vec![],
        security: Security::default(),
        labels: Default::default(),
        log: LogOptions::default(),
        stop_signal: "SIGTERM".into(),
        stop_timeout: 10,
        auto_remove: false,
        restart: RestartPolicy::No,
        health: None,
        id,
    }
}
