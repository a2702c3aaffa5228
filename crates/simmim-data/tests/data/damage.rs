//! Damaged archives: each is cut short, and flipped bit by bit, at many places. Whatever comes out, it is an error or
//! samples, soon, and without more memory than an image may take.

use std::path::Path;
use std::time::{Duration, Instant};

use simmim_data::{Rng, open};
use tempfile::tempdir;

use crate::files::{gray, gzip, tar, write, zip};

/// Opens a file and reads all of its samples; a panic or a hang fails the test.
fn read_all(path: &Path) -> bool {
    match open(&path.display().to_string(), 3) {
        Ok(source) => (0..source.len().min(100)).all(|index| source.get(index).is_ok()),
        Err(error) => {
            assert!(!error.to_string().contains("\u{0}"), "{error:?}");
            false
        }
    }
}

/// Cuts and flips a file of this name and content; `times` of each.
#[track_caller]
fn check(name: &str, whole: &[u8], times: usize) {
    let root = tempdir().unwrap();
    let path = root.path().join(name);
    write(&path, whole);
    assert!(read_all(&path), "{name} is whole");
    let started = Instant::now();
    let mut rng = simmim_data::rng::rng(5, simmim_data::Purpose::Shuffle, 0, whole.len() as u64);
    let below = |rng: &mut Rng, limit: usize| simmim_data::rng::below(rng, limit);
    for time in 0..times {
        let length = time * whole.len() / times;
        write(&path, &whole[..length]);
        let is_read = read_all(&path);
        // a list may end after any row, and a tar file has one block more at its end than it needs
        let may_be_read = name.ends_with(".csv") || (name.ends_with(".tar") && length + 512 >= whole.len());
        assert!(!is_read || may_be_read, "{name} is cut short at {length}");
        let mut flipped = whole.to_vec();
        for _ in 0..=below(&mut rng, 3) {
            flipped[below(&mut rng, whole.len())] ^= 1 << below(&mut rng, 8);
        }
        write(&path, &flipped);
        read_all(&path);
        // bytes of all ones are sizes that are as large as they can be
        let mut filled = whole.to_vec();
        let start = below(&mut rng, whole.len());
        let end = (start + 1 + below(&mut rng, 8)).min(whole.len());
        filled[start..end].fill(0xff);
        write(&path, &filled);
        read_all(&path);
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{name} takes {:?}", started.elapsed());
    let peak = peak_mb().unwrap_or(0);
    assert!(peak < MOST_MB, "reading {name} has taken {peak} MB");
}

/// Twice the memory that an image may take: that of its file and its own.
const MOST_MB: u64 = 1024;

/// The most memory that this process, with the other tests in it, has had at once; only Linux says it.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? >> 10)
}

fn images() -> Vec<(String, Vec<u8>)> {
    (0..6).map(|number| (format!("class-{}/{number}.png", number % 2), gray(number))).collect()
}

fn members(images: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    images.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

#[test]
fn damaged_tar_files_are_errors_or_samples() {
    let images = images();
    let long = format!("{}/x.png", "folder".repeat(40));
    let image = gray(1);
    let members = [&members(&images)[..], &[("a.cls", b"1".as_slice()), (&long, &image)]].concat();
    check("x.tar", &tar(&members), 300);
    check("x.tar.gz", &gzip(&tar(&members)), 300);
}

#[test]
fn damaged_zip_files_are_errors_or_samples() {
    let images = images();
    for method in [::zip::CompressionMethod::Stored, ::zip::CompressionMethod::Deflated] {
        check("x.zip", &zip(&members(&images), method), 400);
    }
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_are_errors_or_samples() {
    let images = images();
    let rows: Vec<_> = images
        .iter()
        .map(|(name, bytes)| crate::parquet::Row { path: Some(name), bytes: Some(bytes), label: Some(1) })
        .collect();
    check("x.parquet", &crate::parquet::written(&rows, &["a", "b"], 4), 400);
}

#[test]
fn damaged_lists_are_errors_or_samples() {
    let root = tempdir().unwrap();
    write(&root.path().join("0.png"), &gray(0));
    let absolute = root.path().join("0.png").display().to_string();
    check("x.csv", format!("path,label\n{absolute},a\n\"{absolute}\",a\n").as_bytes(), 100);
}
