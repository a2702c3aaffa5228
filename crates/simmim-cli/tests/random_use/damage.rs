//! Ways in which files break.

use crate::rng::Rng;
use std::fs;
use std::path::Path;

/// Breaks a file, and says how.
pub(crate) fn damage(path: &Path, rng: &mut Rng) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    let length = bytes.len();
    let what = match rng.below(12) {
        0 | 1 => {
            bytes.truncate(rng.below(length + 1));
            format!("cut to {} of {length} bytes", bytes.len())
        }
        2..=5 if length > 0 => {
            // most of them near the start, where the headers are
            let end = length.min(1 << rng.below(20));
            let bits: Vec<usize> = (0..1 + rng.below(3)).map(|_| rng.below(8 * end)).collect();
            for bit in &bits {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            format!("bits {bits:?} flipped")
        }
        6 => {
            bytes.clear();
            "emptied".into()
        }
        7 => {
            let (start, byte) = (rng.below(length + 1), rng.below(256) as u8);
            let end = (start + 1 + rng.below(16)).min(length);
            bytes[start.min(end)..end].fill(byte);
            format!("bytes {start} to {end} set to {byte}")
        }
        8 => {
            let start = rng.below(12).min(length);
            let end = (start + 8).min(length);
            bytes[start..end].fill(if rng.happens(50) { 0xff } else { 0x7f });
            format!("a huge size in bytes {start} to {end}")
        }
        9 => {
            bytes.extend((0..1 + rng.below(40)).map(|_| rng.below(256) as u8));
            "random bytes appended".into()
        }
        10 => {
            let _ = fs::remove_file(path);
            if rng.happens(50) {
                fs::create_dir(path).unwrap();
                return "replaced by a folder".into();
            }
            return "deleted".into();
        }
        _ => {
            bytes = (0..rng.below(200)).map(|_| rng.below(256) as u8).collect();
            "replaced by random bytes".into()
        }
    };
    fs::write(path, bytes).unwrap();
    what
}

/// Gives a file the extension of another kind.
pub(crate) fn rename(path: &Path, rng: &mut Rng) -> String {
    let extension = rng.pick(&["jpg", "png", "npy", "tar", "txt", "toml", "safetensors", "JPEG", "gz"]);
    let to = path.with_extension(extension);
    let _ = fs::rename(path, &to); // it may be gone already
    format!("renamed to {}", to.display())
}
