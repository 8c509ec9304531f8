//! Look-ups, and what happens when several import at once or die on the way.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;

use super::{Keep, Obtained, Root, Tar, Wanted, config, gzip, names};
use crate::error::{Class, Failure};
use crate::image::oci::digest::Digest;
use crate::image::oci::reference::Reference;

fn tagged(root: &Root, name: &str, config: &[u8]) -> String {
    let id = root.put_config(config);
    root.store.tag(&[name.parse::<Reference>().unwrap()], &id).unwrap();
    id.to_string()
}

#[test]
fn references_before_ids_before_prefixes() {
    let root = Root::new();
    let id = tagged(&root, "busybox", &config(&[]));
    let found = |text: &str| root.store.get(text).unwrap().map(|image| image.id);
    for text in ["busybox", "busybox:latest", "docker.io/library/busybox", &id, &id[7..], &id[7..12], &id[..12]] {
        assert_eq!(found(text).as_deref(), Some(&id[..]), "{text}");
    }
    assert_eq!(found(&format!("busybox@{id}")).as_deref(), Some(&id[..]));
    assert_eq!(found(&format!("other@{id}")), None);
    for text in ["busybox:1", "nothing", "sha256:zz", &"0".repeat(64), &format!("sha256:{}", "0".repeat(64))] {
        assert_eq!(found(text), None, "{text}");
    }
    assert!(root.store.get("Busybox").unwrap_err().to_string().contains("must be lowercase"));
    assert!(root.store.get("../../x").is_err());
    // A name that looks like a prefix of an id is a name first.
    let other = tagged(&root, &id[7..11], br#"{"rootfs":{"diff_ids":[]},"x":1}"#);
    assert_eq!(found(&id[7..11]).as_deref(), Some(&other[..]));
    assert_eq!(found(&id[..11]).as_deref(), Some(&id[..]));
}

#[test]
fn an_ambiguous_prefix_lists() {
    let root = Root::new();
    // Of seventeen, two begin with the same digit.
    let ids: Vec<String> =
        (0..17).map(|i| tagged(&root, "x", format!(r#"{{"rootfs":{{}},"x":{i}}}"#).as_bytes())).collect();
    let digit = |id: &str| id[7..8].to_owned();
    let shared = ids.iter().find(|a| ids.iter().filter(|b| digit(b) == digit(a)).count() > 1).unwrap();
    let failure = Failure::from_error(&root.store.get(&digit(shared)).unwrap_err());
    assert_eq!(failure.class, Class::Conflict);
    for id in ids.iter().filter(|id| digit(id) == digit(shared)) {
        assert!(failure.message.contains(id), "{failure}");
    }
}

#[test]
fn a_damaged_config_is_named_and_hides_no_other() {
    let root = Root::new();
    let good = tagged(&root, "good", &config(&[]));
    let bad = tagged(&root, "bad", br#"{"rootfs":{}}"#);
    let path = root.dir.path().join("image/configs/sha256").join(&bad[7..]);
    fs::write(&path, "{").unwrap();
    assert!(format!("{:#}", root.store.get("bad").unwrap_err()).contains(&format!("{} is damaged", path.display())));
    assert_eq!(root.store.get("good").unwrap().unwrap().id, good);
    let listed = root.store.list().unwrap();
    assert_eq!(listed.iter().map(|image| &image.references[0]).collect::<Vec<_>>(), ["good:latest", "bad:latest"]);
}

#[test]
fn concurrent_imports_of_one_layer_share_it() {
    let root = Root::new();
    let tar = (0..200).fold(Tar::new(), |tar, i| tar.file(&format!("d{}/f{i}", i % 7), b"content")).bytes();
    fs::write(root.dir.path().join("image/shared.tar"), &tar).unwrap();
    let start = Barrier::new(8);
    let import = || {
        start.wait();
        root.store.get_bundled("shared").unwrap().unwrap()
    };
    let images = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(import)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(images.iter().all(|image| *image == images[0]));
    assert_eq!(root.layers(), [Digest::of(&tar).hex()], "no temporary stays");
    assert_eq!(names(&root.store.layer(&images[0].layers[0])).len(), 7);
    assert_eq!(root.store.list().unwrap().len(), 1);
}

#[test]
fn concurrent_tags_are_all_kept() {
    let root = Root::new();
    let id = root.put_config(&config(&[]));
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (root, id) = (&root, &id);
            scope.spawn(move || root.store.tag(&[format!("t{i}").parse().unwrap()], id).unwrap());
        }
    });
    assert_eq!(root.store.list().unwrap()[0].references.len(), 8);
}

#[test]
fn temporaries_of_the_dead_are_swept() {
    let root = Root::new();
    let layers = root.dir.path().join("overlay2/layers");
    // A process that is certainly dead: our own child, reaped.
    let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
    let dead = format!(".tmp-{}-1-0", child.id());
    child.wait().unwrap();
    // Our pid, but not our start time: somebody who had it before.
    let recycled = format!(".tmp-{}-1-0", std::process::id());
    let start = crate::sys::process::start_time(std::process::id().cast_signed()).unwrap();
    let alive = format!(".tmp-{}-{start}-4000000000", std::process::id());
    for name in [&dead, &recycled, &alive, &".tmp-nonsense".to_owned()] {
        fs::create_dir_all(layers.join(name).join("diff/a/b")).unwrap();
        fs::write(layers.join(name).join("diff/a/b/c"), "1").unwrap();
    }
    let tar = Tar::new().file("x", b"1").bytes();
    root.obtain(&tar, None).unwrap();
    let mut expected = vec![alive, Digest::of(&tar).hex().to_owned()];
    expected.sort();
    assert_eq!(root.layers(), expected);
}

#[test]
fn an_import_that_fails_or_is_given_up_leaves_nothing() {
    let root = Root::new();
    let tar = Tar::new().file("x", b"1").bytes();
    let wrong = Digest::of(b"");
    assert!(root.obtain(&tar, Some(&wrong)).is_err());
    assert!(root.obtain(&tar[..1000], None).is_err());
    assert_eq!(root.layers(), [""; 0], "what failed is gone at once");
    root.obtain(&tar, None).unwrap();
    root.assert_empty();
    // An expected layer that is in place is not read again.
    root.obtain(&tar, None).unwrap();
    let (diff_id, obtained) = root.obtain(b"", Some(&Digest::of(&tar))).unwrap();
    assert_eq!((diff_id, obtained), (Digest::of(&tar), Obtained::Existing));
}

#[test]
fn a_sweep_spares_what_images_containers_and_leases_have() {
    let root = Root::new();
    let tars: Vec<Vec<u8>> = (0..4).map(|i| Tar::new().file(&format!("f{i}"), b"1").bytes()).collect();
    for tar in &tars {
        root.obtain(tar, None).unwrap();
    }
    let [imaged, contained, leased, orphan] = [0, 1, 2, 3].map(|i| Digest::of(&tars[i]));
    root.put_config(&config(&[&tars[0]]));
    let lease = root.store.lease().unwrap();
    lease.hold(&root.store, &leased).unwrap();
    let mut used = || Ok(BTreeSet::from([contained.to_string()]));
    let found = root.store.orphans(&mut used).unwrap();
    assert_eq!(found.iter().map(|orphan| &orphan.name).collect::<Vec<_>>(), [&orphan.to_string()]);
    assert!(found[0].bytes >= 4096, "{found:?}");
    root.store.sweep(&mut used).unwrap();
    let mut expected = [imaged.hex(), contained.hex(), leased.hex()].map(str::to_owned);
    expected.sort();
    assert_eq!(root.layers(), expected);
    drop(lease);
    root.store.sweep(&mut || Ok(BTreeSet::new())).unwrap();
    assert_eq!(root.layers(), [imaged.hex()]);
}

#[test]
fn leases_of_the_dead_count_for_nothing() {
    let root = Root::new();
    let tar = Tar::new().file("x", b"1").bytes();
    root.obtain(&tar, None).unwrap();
    let leases = root.dir.path().join("image/leases");
    // What a killed process leaves: the file, without its lock.
    fs::write(leases.join("1-1-1"), format!("{}\n", Digest::of(&tar).hex())).unwrap();
    root.assert_empty();
}

#[test]
fn only_root_reads_what_the_store_keeps() {
    use std::os::unix::fs::PermissionsExt;
    let root = Root::new();
    let tar = Tar::new().file("secret", b"1").bytes();
    let wanted = Wanted { diff_id: None, blob: None, keep: Keep::Blob };
    let lease = root.store.lease().unwrap();
    root.store.obtain(&lease, wanted, || Ok(Box::new(std::io::Cursor::new(gzip(&tar)))), || {}).unwrap();
    root.put_config(&config(&[&tar]));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let layer = root.dir.path().join("overlay2/layers").join(Digest::of(&tar).hex());
    let blobs = root.dir.path().join("image/blobs/sha256");
    let blob = blobs.join(&names(&blobs)[0]);
    for file in [layer.join("recipe"), layer.join("layer.json"), blob] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&layer), 0o710, "users of a container come through a descriptor, never through here");
}

#[test]
fn a_recipe_tells_how_long_its_tar_is() {
    let root = Root::new();
    for size in [0, 1, 511, 512, 70_000, 3_000_000] {
        let tar = Tar::new().file("f", &vec![1; size]).bytes();
        let (diff_id, _) = root.obtain(&tar, None).unwrap();
        let length = crate::image::layer::recipe::length(&root.store.layer_directory(&diff_id)).unwrap();
        assert_eq!(length, tar.len() as u64, "{size}");
    }
}

#[test]
fn what_a_power_cut_may_have_torn_is_verified_before_it_is_used() {
    let root = Root::new();
    let tar = Tar::new().file("f", b"content").bytes();
    root.obtain(&tar, None).unwrap();
    let id = root.put_config(&config(&[&tar]));
    let image = root.store.get(&id.to_string()).unwrap().unwrap();
    let digest = Digest::of(&tar);
    let mark = root.dir.path().join("image/unsettled").join(digest.hex());
    // This boot made it: nobody looks.
    root.store.trust(&image.layers).unwrap();
    assert!(mark.exists());
    // An earlier boot did, and all of it reached the disk.
    fs::write(&mark, "an earlier boot").unwrap();
    root.store.trust(&image.layers).unwrap();
    assert!(!mark.exists());
    // An earlier boot did, and a file lost its contents.
    fs::write(&mark, "an earlier boot").unwrap();
    fs::write(root.store.layer(&digest.to_string()).join("f"), "\0\0\0\0\0\0\0").unwrap();
    let failure = Failure::from_error(&root.store.trust(&image.layers).unwrap_err());
    assert!(failure.message.contains("was torn when the machine went down"), "{failure}");
    assert_eq!(root.layers(), [""; 0], "it is dropped, so that the next pull brings it");
    assert!(!mark.exists());
    // And flushing takes marks of this boot away.
    root.obtain(&tar, None).unwrap();
    root.store.settle().unwrap();
    assert!(!mark.exists());
}

/// Members that undo each other: there is no recipe to verify the layer by, and `import` has no registry to ask again.
#[test]
fn what_was_torn_is_made_anew_from_what_was_kept() {
    let undone = Tar::new().file("f", b"1").file("f", b"22").bytes();
    let plain = Tar::new().file("f", b"22").bytes();
    for (tar, came, keep) in [
        (&undone, undone.clone(), Keep::Nothing),
        (&undone, gzip(&undone), Keep::Nothing),
        (&undone, gzip(&undone), Keep::Blob),
        (&plain, gzip(&plain), Keep::Blob),
    ] {
        let root = Root::new();
        let lease = root.store.lease().unwrap();
        let wanted = Wanted { diff_id: None, blob: None, keep };
        let (digest, _) = root.store.obtain(&lease, wanted, || Ok(Box::new(&came[..])), || {}).unwrap();
        let id = root.put_config(&config(&[tar]));
        let image = root.store.get(&id.to_string()).unwrap().unwrap();
        let file = root.store.layer(&digest.to_string()).join("f");
        let tear = || {
            fs::write(root.dir.path().join("image/unsettled").join(digest.hex()), "an earlier boot").unwrap();
            fs::write(&file, "\0\0").unwrap();
        };
        for _ in 0..2 {
            tear();
            root.store.trust(&image.layers).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"22");
            assert_eq!(root.layers(), [digest.hex()]);
            // And can be torn again.
            assert!(root.store.is_unsettled());
        }
        // The bytes that were kept are torn as well.
        tear();
        let blobs = root.dir.path().join("image/blobs/sha256");
        assert_eq!(names(&blobs).len(), 1);
        fs::write(blobs.join(&names(&blobs)[0]), "").unwrap();
        let failure = Failure::from_error(&root.store.trust(&image.layers).unwrap_err());
        assert!(failure.message.contains("was torn when the machine went down"), "{failure}");
        assert_eq!(root.layers(), [""; 0]);
        assert!(!root.store.is_unsettled());
    }
}
