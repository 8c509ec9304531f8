//! Recipes: small, true, and never believed when they are damaged.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::jail::Jail;
use super::{Tar, names};
use crate::image::layer::apply::{Limits, Retold};
use crate::image::layer::recipe;
use crate::image::oci::digest::Digest;

fn tell(staging: &Path) -> Result<Vec<u8>, String> {
    let mut told = Vec::new();
    let mut reader = recipe::tar(staging).map_err(|error| format!("{error:#}"))?;
    reader.read_to_end(&mut told).map_err(|error| error.to_string())?;
    Ok(told)
}

fn sample() -> Tar {
    Tar::new()
        .directory("etc/", 0o755)
        .file("etc/passwd", &[7; 1000])
        .pax(&[("path", "etc/long".repeat(8).as_bytes()), ("mtime", b"1.5")])
        .file("x", b"1")
        .symlink("l", "etc")
        .file("l/through", b"a link")
        .file(".wh.gone", b"with contents")
}

#[test]
fn a_member_takes_few_bytes() {
    let jail = Jail::new();
    let tar = (0..1000).fold(Tar::new(), |tar, i| tar.file(&format!("usr/share/doc/package-{i}.copyright"), b"text"));
    jail.apply(tar).unwrap();
    let size = fs::metadata(jail.staging().join("recipe")).unwrap().len();
    assert!(size < 60_000, "{size} bytes for 1000 members");
}

#[test]
fn damage_is_an_error_wherever_it_is() {
    let jail = Jail::new();
    let bytes = sample().bytes();
    jail.apply_bytes(&bytes, &Limits::default()).unwrap();
    let path = jail.staging().join("recipe");
    let good = fs::read(&path).unwrap();
    assert_eq!(tell(&jail.staging()).unwrap(), bytes);
    for at in 0..good.len() {
        fs::write(&path, &good[..at]).unwrap();
        assert!(tell(&jail.staging()).is_err(), "cut at {at}");
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).unwrap();
        assert!(tell(&jail.staging()).is_err(), "byte {at} changed");
    }
    fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    assert!(tell(&jail.staging()).is_err());
}

#[test]
fn even_with_a_right_checksum_numbers_are_not_believed() {
    let jail = Jail::new();
    jail.apply(sample()).unwrap();
    let path = jail.staging().join("recipe");
    let good = fs::read(&path).unwrap();
    let body = good.len() - 4;
    for at in 18..body {
        for value in [0, 3, 0x24, 0x3c, 0xff] {
            let mut damaged = good[..body].to_vec();
            damaged[at] = value;
            let mut crc = flate2::Crc::new();
            crc.update(&damaged);
            damaged.extend_from_slice(&crc.sum().to_le_bytes());
            fs::write(&path, &damaged).unwrap();
            // Neither a panic nor an endless stream; bytes that are themselves contents make another tar.
            let mut told = Vec::new();
            if let Ok(reader) = recipe::tar(&jail.staging()) {
                let _ = reader.take(100_000).read_to_end(&mut told);
            }
        }
    }
}

#[test]
fn verification_names_what_changed() {
    let jail = Jail::new();
    let bytes = sample().bytes();
    jail.apply_bytes(&bytes, &Limits::default()).unwrap();
    recipe::verify(&jail.staging(), &Digest::of(&bytes)).unwrap();
    let fails = |reason: &str| {
        let text = format!("{:#}", recipe::verify(&jail.staging(), &Digest::of(&bytes)).unwrap_err());
        assert!(text.contains(reason) && text.contains("is damaged"), "{text}");
    };
    let passwd = jail.path("etc/passwd");
    fs::write(&passwd, [8; 1000]).unwrap();
    fails("\"etc/passwd\" of the layer is not as it was");
    fs::write(&passwd, [7; 999]).unwrap();
    fails("\"etc/passwd\" of the layer is shorter");
    fs::remove_file(&passwd).unwrap();
    fails("open \"etc/passwd\"");
    // Neither waited for nor followed out of the layer.
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    fails("no regular file");
    fs::remove_file(&passwd).unwrap();
    std::os::unix::fs::symlink(jail.outside("secret"), &passwd).unwrap();
    fails("open \"etc/passwd\"");
    fs::remove_file(&passwd).unwrap();
    fs::write(&passwd, [7; 1000]).unwrap();
    recipe::verify(&jail.staging(), &Digest::of(&bytes)).unwrap();
    let other = format!("{:#}", recipe::verify(&jail.staging(), &Digest::of(b"")).unwrap_err());
    assert!(other.contains("is damaged: it now is sha256:"), "{other}");
}

#[test]
fn what_undoes_itself_is_kept_as_it_came() {
    for (tar, retold) in [
        (Tar::new().file("f", b"old").file("f", b"new").file("g", b"more"), Retold::Not),
        (Tar::new().file("d/f", b"1").file("d", b"2"), Retold::Not),
        (
            Tar::new()
                .directory("a", 0o755)
                .directory("b", 0o755)
                .symlink("l", "a")
                .file("l/f", b"1")
                .symlink("l", "b"),
            Retold::Not,
        ),
        (Tar::new().file("f", b"1").hard_link("g", "f").file("f", b"2"), Retold::Not),
        (Tar::new().file("f", b"1").directory("f", 0o755), Retold::Not),
        // Nothing is lost by these.
        (Tar::new().file("f", b"").file("f", b"new"), Retold::Exact),
        (Tar::new().directory("d", 0o700).file("d/f", b"1").directory("d", 0o755), Retold::Exact),
        (Tar::new().directory("d", 0o700).file("d", b"1"), Retold::Exact),
        (Tar::new().file("f", b"1").hard_link("f", "f").hard_link("g", "f").hard_link("g", "f"), Retold::Exact),
        (Tar::new().file(".wh.f", b"").file("f", b"1").file(".wh.f", b""), Retold::Exact),
    ] {
        let jail = Jail::new();
        assert_eq!(jail.apply(tar).unwrap().retold, retold, "{:?}", names(&jail.path("")));
    }
}

#[test]
fn odd_names_of_files_are_told_again() {
    for name in ["f/.", "f/", "f//", "f/./", "./f", "/f", "d//f", "d/./f/."] {
        let jail = Jail::new();
        let applied = jail.apply(Tar::new().file(name, b"content")).unwrap();
        assert_eq!(applied.retold, Retold::Exact, "{name}");
    }
}
