//! Whole configs, before and after.

use serde_json::{Value, json};

use super::{Document, Step, parse};
use crate::image::oci::digest::Digest;
use crate::image::{Defaults, Healthcheck};

fn base() -> Value {
    json!({
        "architecture": "amd64", "os": "linux", "os.version": "1", "variant": "v2", "docker_version": "20.10",
        "container": "abc", "container_config": {"Hostname": "x"}, "x.unknown": {"deep": [1, 2.5, null]},
        "created": "2020-01-01T00:00:00Z", "author": "somebody",
        "config": {
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Entrypoint": ["/e"], "Labels": {"k": "v"},
            "Volumes": {"/v": {}}, "WorkingDir": "/w", "OnBuild": ["RUN x"], "Unknown": true,
            "Healthcheck": {"Test": ["CMD", "true"]},
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:00"]},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "base"}],
    })
}

fn document(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.to_bytes().unwrap()).unwrap()
}

/// What `config` becomes by these changes.
fn changed(config: &Value, changes: &[&str]) -> Value {
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    let mut document = document(&json!({"config": config}));
    document.apply(&parse(&changes).unwrap()).unwrap_or_else(|error| panic!("{changes:?}: {error:#}"));
    value(&document)["config"].clone()
}

fn step(layer: Option<Digest>) -> Step {
    Step {
        created: "2026-01-02T03:04:05.5Z".parse().unwrap(),
        created_by: "sh -c x".into(),
        author: "me".into(),
        comment: "why".into(),
        layer,
    }
}

#[test]
fn a_step_adds_layer_and_history_and_keeps_what_is_unknown() {
    let mut document = document(&base());
    let layer = Digest::of(b"layer");
    document.push(&step(Some(layer.clone()))).unwrap();
    let mut expected = base();
    for name in ["docker_version", "container", "container_config"] {
        expected.as_object_mut().unwrap().remove(name);
    }
    expected["created"] = json!("2026-01-02T03:04:05.5Z");
    expected["author"] = json!("me");
    expected["comment"] = json!("why");
    expected["rootfs"]["diff_ids"] = json!(["sha256:00", layer.to_string()]);
    let entry = json!({"created": "2026-01-02T03:04:05.5Z", "created_by": "sh -c x", "author": "me", "comment": "why"});
    expected["history"].as_array_mut().unwrap().push(entry);
    assert_eq!(value(&document), expected);
    // One that changed no file has no layer, and says so.
    document.push(&step(None)).unwrap();
    let after = value(&document);
    assert_eq!(after["rootfs"], expected["rootfs"]);
    assert_eq!(after["history"][2]["empty_layer"], true);
    // Nobody is not an empty name.
    document.push(&Step { author: String::new(), comment: String::new(), ..step(None) }).unwrap();
    let after = value(&document);
    assert_eq!(after.get("author"), None);
    assert_eq!(after["history"][3].get("comment"), None);
}

#[test]
fn a_base_without_history_gets_one() {
    for history in [Value::Null, json!([])] {
        let mut document = document(&json!({"rootfs": {"diff_ids": []}, "history": history}));
        document.push(&step(None)).unwrap();
        assert_eq!(value(&document)["history"].as_array().unwrap().len(), 1);
    }
    for broken in [json!({}), json!({"rootfs": {}}), json!({"rootfs": {"diff_ids": 1}}), json!({"rootfs": []})] {
        assert!(document(&broken).push(&step(Some(Digest::of(b"")))).is_err(), "{broken}");
    }
    let many = vec!["sha256:00"; 500];
    let full = json!({"rootfs": {"diff_ids": many}});
    assert!(document(&full).push(&step(Some(Digest::of(b"")))).unwrap_err().to_string().contains("more than 500"));
    assert!(Document::parse(b"[]").is_err());
    assert!(Document::parse(b"{").is_err());
}

#[test]
fn what_a_container_was_run_with_replaces_the_bases() {
    let mut document = document(&base());
    let defaults = Defaults {
        env: vec!["B=2".into()],
        command: vec!["top".into(), "-b".into()],
        user: "1".into(),
        labels: [("l".to_owned(), "m".to_owned())].into(),
        exposed_ports: vec!["80/tcp".into()],
        stop_signal: Some("SIGUSR1".into()),
        healthcheck: Some(Healthcheck { test: Some(vec!["NONE".into()]), ..Healthcheck::default() }),
        shell: vec!["/bin/bash".into(), "-c".into()],
        ..Defaults::default()
    };
    document.run_with(&defaults).unwrap();
    assert_eq!(
        value(&document)["config"],
        json!({"Env": ["B=2"], "Cmd": ["top", "-b"], "User": "1", "Labels": {"l": "m"}, "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGUSR1", "Unknown": true, "Healthcheck": {"Test": ["NONE"]}, "Shell": ["/bin/bash", "-c"]})
    );
}

#[test]
fn commands_and_entrypoints() {
    let before = json!({"Cmd": ["old"], "Entrypoint": ["/e"]});
    assert_eq!(changed(&before, &["CMD [\"a\"]"]), json!({"Cmd": ["a"], "Entrypoint": ["/e"]}));
    assert_eq!(changed(&before, &["CMD a b"]), json!({"Cmd": ["/bin/sh", "-c", "a b"], "Entrypoint": ["/e"]}));
    // An entrypoint takes the inherited command away, not one that is set here.
    assert_eq!(changed(&before, &["ENTRYPOINT [\"/x\"]"]), json!({"Entrypoint": ["/x"]}));
    let both = json!({"Cmd": ["a"], "Entrypoint": ["/x"]});
    assert_eq!(changed(&before, &["CMD [\"a\"]", "ENTRYPOINT [\"/x\"]"]), both);
    assert_eq!(changed(&before, &["ENTRYPOINT [\"/x\"]", "CMD [\"a\"]"]), both);
    let shell = json!({"Shell": ["/bin/bash", "-ec"]});
    assert_eq!(changed(&shell, &["CMD x"])["Cmd"], json!(["/bin/bash", "-ec", "x"]));
    assert_eq!(changed(&before, &["CMD []"]), json!({"Entrypoint": ["/e"]}));
}

#[test]
fn variables_are_put_in_from_the_images_environment() {
    let before = json!({"Env": ["PATH=/bin", "A=1"]});
    assert_eq!(changed(&before, &["ENV PATH=$PATH:/x"])["Env"], json!(["PATH=/bin:/x", "A=1"]));
    assert_eq!(changed(&before, &["ENV B=\"x $A\" C='$A' D=a\\ b"])["Env"][4], "D=a b");
    assert_eq!(changed(&before, &["ENV B=\"x $A\" C='$A'"])["Env"], json!(["PATH=/bin", "A=1", "B=x 1", "C=$A"]));
    // Within one instruction the values are those of before it, by the Dockerfile reference.
    assert_eq!(changed(&before, &["ENV A=2 B=$A"])["Env"], json!(["PATH=/bin", "A=2", "B=1"]));
    assert_eq!(changed(&before, &["ENV A=2", "ENV B=$A"])["Env"], json!(["PATH=/bin", "A=2", "B=2"]));
    assert_eq!(changed(&before, &["ENV B some words"])["Env"][2], "B=some words");
    assert_eq!(changed(&before, &["LABEL a=$A b=\"c d\""])["Labels"], json!({"a": "1", "b": "c d"}));
    assert_eq!(changed(&before, &["WORKDIR /srv/$A"])["WorkingDir"], "/srv/1");
    assert_eq!(changed(&before, &["USER ${U:-nobody}"])["User"], "nobody");
    assert_eq!(changed(&json!({"Env": null}), &["ENV A=1"])["Env"], json!(["A=1"]));
}

#[test]
fn the_others() {
    let none = json!({});
    assert_eq!(
        changed(&none, &["EXPOSE 80 8000-8002/UDP"])["ExposedPorts"],
        json!({"80/tcp": {}, "8000/udp": {}, "8001/udp": {}, "8002/udp": {}})
    );
    assert_eq!(changed(&json!({"Volumes": {"/a": {}}}), &["VOLUME /b"])["Volumes"], json!({"/a": {}, "/b": {}}));
    assert_eq!(changed(&none, &["WORKDIR a", "WORKDIR b/../c", "WORKDIR ./d"])["WorkingDir"], "/a/c/d");
    assert_eq!(changed(&none, &["STOPSIGNAL 9"])["StopSignal"], "9");
    assert_eq!(changed(&json!({"OnBuild": ["RUN a"]}), &["ONBUILD RUN b"])["OnBuild"], json!(["RUN a", "RUN b"]));
    assert_eq!(changed(&none, &["HEALTHCHECK NONE"])["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(
        changed(&none, &["HEALTHCHECK --interval=5s --retries=2 CMD [\"/check\"]"])["Healthcheck"],
        json!({"Test": ["CMD", "/check"], "Interval": 5_000_000_000_i64, "Retries": 2})
    );
    for (change, reason) in [
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 80/icmp", "invalid proto: icmp"),
        ("EXPOSE 9-1", "invalid containerPort: 9-1"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("ENV A='x", "single-quote"),
    ] {
        let error = document(&json!({})).apply(&parse(&[change.to_owned()]).unwrap()).unwrap_err();
        assert!(error.to_string().contains(reason), "{change}: {error:#}");
    }
}
