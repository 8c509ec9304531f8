//! `history`.

use serde_json::{Value, json};

use crate::ours_only;
use crate::support::Sandbox;
use crate::support::archive::{Image, Layer};

#[test]
fn the_last_step_comes_first_and_only_layers_have_sizes() {
    ours_only!("loads an image without a tag of its own");
    let s = Sandbox::new();
    let long = format!("RUN\techo {}", "x".repeat(100));
    let layers = [Layer::default().file("a", 0o644, vec![0; 3000]), Layer::default().file("b", 0o644, vec![0; 2000])];
    s.load_images(&[Image {
        references: &["steps:1"],
        history: json!([
            {"created": "2020-01-01T00:00:00Z", "created_by": "ADD a"},
            {"created": "2021-01-01T00:00:00Z", "created_by": "ENV A=1", "empty_layer": true},
            {"created": "2022-01-01T00:00:00Z", "created_by": long, "comment": "last"},
            {"created_by": "CMD [\"x\"]", "empty_layer": true},
        ]),
        layers: &layers,
        ..Image::default()
    }]);
    let id = s.ok(["image", "inspect", "-f", "{{.Id}}", "steps:1"]);
    let table = s.ok(["history", "steps:1"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("IMAGE          CREATED"), "{table}");
    assert!(lines[1].starts_with(&id[7..19]) && lines[1].contains("N/A") && lines[1].ends_with("0B"), "{table}");
    assert!(lines[2].starts_with("<missing>") && lines[2].ends_with("2kB       last"), "{table}");
    assert!(lines[2].contains(&format!("RUN echo {}…", "x".repeat(35))), "{table}");
    assert!(lines[4].contains("ADD a") && lines[4].ends_with("3kB"), "{table}");
    assert_eq!(s.ok(["image", "history", "-q", "steps:1"]), format!("{}\n<missing>\n<missing>\n<missing>", &id[7..19]));
    assert!(s.ok(["history", "-q", "--no-trunc", "steps:1"]).starts_with(&id));
    let exact = s.ok(["history", "-H=false", "--no-trunc", "steps:1"]);
    assert!(
        exact.contains("CREATED AT") && exact.contains("2022-01-01T00:00:00Z") && exact.contains("2000"),
        "{exact}"
    );
    assert!(exact.contains(&"x".repeat(100)), "{exact}");
    let row: Value =
        serde_json::from_str(s.ok(["history", "--format", "json", "steps:1"]).lines().nth(1).unwrap()).unwrap();
    assert_eq!((&row["Comment"], &row["Size"], &row["ID"]), (&json!("last"), &json!("2kB"), &json!("<missing>")));
    s.fails(1, ["history", "missing"]).says("No such image: missing:latest");
}

#[test]
fn a_history_that_does_not_fit_its_layers_is_no_error() {
    ours_only!("Docker refuses one with too many steps");
    let s = Sandbox::new();
    let layers =
        || [Layer::default().file("a", 0o644, vec![0; 3000]), Layer::default().file("b", 0o644, vec![0; 2000])];
    let images = [
        ("none:1", json!([])),
        ("few:1", json!([{"created_by": "x"}])),
        ("many:1", json!([{"created_by": "x"}, {"created_by": "y"}, {"created_by": "z"}])),
    ];
    for (name, history) in images {
        s.load_images(&[Image { references: &[name], history, layers: &layers(), ..Image::default() }]);
    }
    let sizes = |name: &str| s.ok(["history", "--format", "{{.CreatedBy}} {{.Size}}", name]);
    assert_eq!(sizes("none:1"), " 2kB\n 3kB");
    assert_eq!(sizes("few:1"), "x 2kB\n 3kB");
    assert_eq!(sizes("many:1"), "z 0B\ny 2kB\nx 3kB");
}
