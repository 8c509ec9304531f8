//! Unpacking as a whole: compressions, stages, what is kept, what bombs meet.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use super::{Tar, gzip, names};
use crate::image::layer::apply::Limits;
use crate::image::layer::recipe;
use crate::image::layer::stream::Compression;
use crate::image::layer::unpack::{Keep, Retold, Unpacked, unpack};
use crate::image::oci::digest::Digest;

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn large() -> Vec<u8> {
    Tar::new().file("noise", &noise(900_001)).file("zeros", &[0; 2_000_000]).directory("d", 0o755).bytes()
}

fn unpacked(bytes: &[u8], keep: Keep) -> (tempfile::TempDir, anyhow::Result<Unpacked>) {
    let staging = tempfile::tempdir().unwrap();
    let result = unpack(bytes, staging.path(), keep, &Limits::default());
    (staging, result)
}

fn told(staging: &Path) -> Vec<u8> {
    let mut told = Vec::new();
    recipe::tar(staging).unwrap().read_to_end(&mut told).unwrap();
    told
}

fn refused(bytes: &[u8], reason: &str) {
    let (_staging, result) = unpacked(bytes, Keep::Nothing);
    let text = format!("{:#}", result.expect_err(reason));
    assert!(text.contains(reason), "{text}");
}

#[test]
fn every_compression_gives_the_same_layer() {
    for tar in [Tar::new().file("small", b"1").bytes(), large()] {
        for (bytes, compression) in
            [(tar.clone(), Compression::None), (gzip(&tar), Compression::Gzip), (zstd(&tar), Compression::Zstd)]
        {
            for keep in [Keep::Nothing, Keep::Blob] {
                let (staging, result) = unpacked(&bytes, keep);
                let result = result.unwrap();
                assert_eq!(result.diff_id, Digest::of(&tar));
                assert_eq!((result.digest, result.length), (Digest::of(&bytes), bytes.len() as u64));
                assert_eq!((result.compression, result.retold, result.has_end), (compression, Retold::Exact, true));
                assert_eq!(told(staging.path()), tar);
                recipe::verify(staging.path(), &result.diff_id).unwrap();
                if keep == Keep::Blob && compression != Compression::None {
                    assert_eq!(fs::read(staging.path().join("blob")).unwrap(), bytes);
                } else {
                    assert_eq!(names(staging.path()), ["diff", "recipe"]);
                }
            }
        }
    }
}

#[test]
fn a_layer_that_cannot_be_told_again_is_kept() {
    let tar = Tar::new().file("f", &noise(500_000)).file("g", b"1").file("f", b"2").file("h", &noise(500_000)).bytes();
    for (bytes, keep, kept) in [
        (tar.clone(), Keep::Nothing, &tar),
        (tar.clone(), Keep::Blob, &tar),
        (gzip(&tar), Keep::Nothing, &tar),
        (gzip(&tar), Keep::Blob, &gzip(&tar)),
    ] {
        let (staging, result) = unpacked(&bytes, keep);
        assert_eq!(result.unwrap().retold, Retold::Not);
        assert_eq!(names(staging.path()), ["blob", "diff"]);
        assert!(fs::read(staging.path().join("blob")).unwrap() == *kept);
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    for tar in [Tar::new().file("small", b"1").bytes(), large()] {
        let (first, second) = tar.split_at(tar.len() / 2);
        let skippable = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'a', b'b', b'c'];
        for bytes in [
            [gzip(first), gzip(second)].concat(),
            [gzip(first), gzip(b""), gzip(second)].concat(),
            [zstd(first), zstd(second)].concat(),
            [&skippable[..], &zstd(first), &skippable, &zstd(second), &skippable].concat(),
        ] {
            let (staging, result) = unpacked(&bytes, Keep::Nothing);
            let result = result.unwrap();
            assert_eq!(result.diff_id, Digest::of(&tar));
            assert_eq!(result.digest, Digest::of(&bytes));
            assert_eq!(told(staging.path()), tar);
        }
        // As Go's readers have it.
        for garbage in [&b"x"[..], b"garbage that goes on", &[0; 100]] {
            refused(&[&gzip(&tar)[..], garbage].concat(), "read archive");
            refused(&[&zstd(&tar)[..], garbage].concat(), "read archive");
        }
    }
}

#[test]
fn streams_that_are_cut_or_damaged_are_refused() {
    for (tar, step) in [(Tar::new().file("small", &noise(2000)).bytes(), 97), (large(), 50_021)] {
        for bytes in [gzip(&tar), zstd(&tar)] {
            for cut in (1..bytes.len()).step_by(step).chain(bytes.len() - 10..bytes.len()) {
                let (_staging, result) = unpacked(&bytes[..cut], Keep::Nothing);
                assert!(result.is_err(), "cut at {cut} of {}", bytes.len());
            }
        }
        let mut damaged = gzip(&tar);
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        refused(&damaged, "");
        let mut damaged = gzip(&tar);
        let checksum = damaged.len() - 6;
        damaged[checksum] ^= 1;
        refused(&damaged, "read archive");
    }
    refused(b"BZh91AY&SY", "bzip2 compression is not supported");
    refused(b"\xfd7zXZ\0\0\x04", "xz compression is not supported");
}

/// A stream that breaks after so many bytes, and then says that it has ended.
struct Broken<'a>(&'a [u8], bool);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buffer.len()).min(10_000);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        if count == 0 && !std::mem::replace(&mut self.1, true) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line went dead"));
        }
        Ok(count)
    }
}

#[test]
fn an_error_of_the_source_is_told_as_such() {
    let tar = large();
    for bytes in [&gzip(&tar)[..], &zstd(&tar), &tar] {
        for length in [5000, 200_000, bytes.len() - 1, bytes.len()] {
            let staging = tempfile::tempdir().unwrap();
            let result = unpack(Broken(&bytes[..length], false), staging.path(), Keep::Nothing, &Limits::default());
            let text = format!("{:#}", result.expect_err("the stream broke"));
            assert!(text.contains("the line went dead"), "{length}: {text}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_layer() {
    let staging = tempfile::tempdir().unwrap();
    rustix::mount::mount("tmpfs", staging.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=1m").unwrap();
    let result = unpack(&gzip(&large())[..], staging.path(), Keep::Blob, &Limits::default());
    rustix::mount::unmount(staging.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let text = format!("{:#}", result.expect_err("the disk was full"));
    assert!(text.contains("No space left"), "{text}");
}

#[test]
fn bombs_meet_the_limit_before_the_disk_does() {
    let limits = Limits { entries: 100, bytes: 1 << 20 };
    // A gigabyte of zeros in one member, then in what follows the end.
    for (header, reason) in [(true, "unpacks to more than 1048576 bytes"), (false, "exceed the limit of 1048576")] {
        for compressed in [bomb_gzip(header), bomb_zstd(header)] {
            let staging = tempfile::tempdir().unwrap();
            let result = unpack(&compressed[..], staging.path(), Keep::Nothing, &limits);
            let text = format!("{:#}", result.expect_err(reason));
            assert!(text.contains(reason), "{text}");
        }
    }
}

fn bomb(mut into: impl Write, header: bool) {
    if header {
        let mut header = tar::Header::new_gnu();
        header.set_path("bomb").unwrap();
        header.set_size(1 << 30);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        into.write_all(header.as_bytes()).unwrap();
    }
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        into.write_all(&zeros).unwrap();
    }
}

fn bomb_gzip(header: bool) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb(&mut encoder, header);
    encoder.finish().unwrap()
}

fn bomb_zstd(header: bool) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    bomb(&mut encoder, header);
    encoder.finish().unwrap()
}

#[test]
fn a_window_that_would_take_all_memory_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&large()).unwrap();
    let bytes = encoder.finish().unwrap();
    refused(&bytes, "window");
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(25).unwrap();
    encoder.write_all(&large()).unwrap();
    unpacked(&encoder.finish().unwrap(), Keep::Nothing).1.unwrap();
}
