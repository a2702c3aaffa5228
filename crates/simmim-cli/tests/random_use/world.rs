//! Inputs that every run uses copies of: images in every form, tiny recipes, and runs that were trained with them.

use crate::process::{Step, run};
use std::fs;
use std::path::{Path, PathBuf};

/// Recipes of the smallest networks that there are; each run takes milliseconds.
const RECIPES: &[(&str, &str)] = &[
    ("vit.toml", "extends = \"demo\"\n[encoder]\nwidth = 8\ndepth = 1\nheads = 2\n"),
    (
        "swin.toml",
        "extends = \"pretrain-swin-cifar\"\n[encoder]\nwidth = 8\ndepths = [1, 1]\nheads = [1, 2]\nwindow = 2\n\
         [mask]\nunit_px = 4\n",
    ),
    (
        "swinv2.toml",
        "extends = \"pretrain-swinv2-t-192\"\n[encoder]\npatch_px = 2\nwidth = 8\ndepths = [1, 1]\nheads = [1, 2]\n\
         window = 2\n[mask]\nunit_px = 4\n[target]\nwindow_px = 3\n",
    ),
    (
        "clusters.toml",
        "extends = \"demo\"\n[encoder]\nwidth = 8\ndepth = 1\nheads = 2\n[target]\nkind = \"color-clusters\"\n\
         clusters = 4\n",
    ),
    (
        "finetune.toml",
        "extends = \"finetune-demo\"\n[encoder]\nwidth = 8\ndepth = 1\nheads = 2\n[labels]\nfraction = 1.0\n",
    ),
    ("tokenizer.toml", "extends = \"tokenizer-cifar\"\n[tokenizer]\nvocabulary = 8\nwidth = 4\ntoken_width = 4\n"),
];

/// What all of these recipes end with.
const COMMON: &str = "[data]\nimage_size = 8\nchannels = 1\nnormalization = \"measured\"\nmax_skipped = 0.5\n\
                      [train]\nbatch_size = 4\nmax_steps = 4\ncheckpoint_every_steps = 2\nlog_every_steps = 1\n\
                      validate_every_steps = 2\nschedule = \"cosine\"\n";

/// Collections of images, relative to the folder of inputs.
pub(crate) const DATA: &[&str] = &["arrays", "floats", "pictures", "shard.tar", "images-idx3-ubyte"];

/// Trained runs, relative to the folder of inputs.
pub(crate) const RUNS: &[&str] = &["vit", "swin", "clusters", "tuned", "tok"];

/// Makes the inputs in `folder`, with the command itself.
pub(crate) fn make(folder: &Path) {
    images(folder);
    for (name, text) in RECIPES {
        let common = match *name {
            "tokenizer.toml" => COMMON.replace("\"measured\"", "\"none\""),
            _ => COMMON.to_owned(),
        };
        fs::write(folder.join(name), format!("{text}{common}")).unwrap();
    }
    for arguments in [
        "pretrain --recipe vit.toml --data arrays --val arrays --out vit",
        "pretrain --recipe swin.toml --data arrays --out swin",
        "pretrain --recipe clusters.toml --data arrays --out clusters",
        "finetune --from vit --recipe finetune.toml --data arrays --val arrays --out tuned",
        "tokenizer --recipe tokenizer.toml --data arrays --out tok",
        "palette --data arrays --channels 1 --colors 4 --out palette.safetensors",
    ] {
        let computes = !arguments.starts_with("palette");
        let options = ["--threads=1", "--precision=f32"].into_iter().filter(|_| computes);
        let step = Step::new(arguments.split(' ').chain(options));
        let ended = run(&step, folder);
        assert_eq!(ended.code, Some(0), "{step} fails: {}", ended.stderr);
    }
}

/// Twelve labeled images of two classes as arrays of bytes and of floats, PNG and JPEG, a tar shard and IDX.
fn images(folder: &Path) {
    let value = |number: u32, at: u32| (number * 31 + at * 7 + at * at) as u8;
    let mut shard = tar::Builder::new(fs::File::create(folder.join("shard.tar")).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        shard.append_data(&mut header, name, bytes).unwrap();
    };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for number in 0..12 {
        let class = ["a", "b"][number as usize % 2];
        for kind in ["arrays", "floats", "pictures"] {
            fs::create_dir_all(folder.join(kind).join(class)).unwrap();
        }
        let bytes: Vec<u8> = (0..64).map(|at| value(number, at)).collect();
        let floats: Vec<u8> = bytes.iter().flat_map(|byte| (f32::from(*byte) / 255.0).to_le_bytes()).collect();
        fs::write(folder.join(format!("arrays/{class}/{number}.npy")), array("|u1", &bytes)).unwrap();
        fs::write(folder.join(format!("floats/{class}/{number}.npy")), array("<f4", &floats)).unwrap();
        let is_photograph = number % 3 == 0;
        let extension = if is_photograph { "jpg" } else { "png" };
        let path = folder.join(format!("pictures/{class}/{number}.{extension}"));
        if is_photograph {
            let photograph = ["others-buffetset", "tools-hammer5", "tools-plier1"][number as usize % 9 / 3];
            let photographs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
            fs::copy(format!("{photographs}/{photograph}.jpg"), &path).unwrap();
        } else {
            let picture = image::GrayImage::from_fn(12, 10, |x, y| image::Luma([value(number, x + 12 * y)]));
            picture.save(&path).unwrap();
        }
        add(format!("{number:03}.{extension}"), &fs::read(&path).unwrap());
        add(format!("{number:03}.cls"), (number % 2).to_string().as_bytes());
        pixels.extend(bytes);
        labels.push((number % 2) as u8);
    }
    shard.into_inner().unwrap();
    let idx = |kind: u8, sizes: &[u32], bytes: &[u8]| {
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(sizes).chain(bytes.iter().copied()).collect::<Vec<u8>>()
    };
    fs::write(folder.join("images-idx3-ubyte"), idx(3, &[12, 8, 8], &pixels)).unwrap();
    fs::write(folder.join("labels-idx1-ubyte"), idx(1, &[12], &labels)).unwrap();
}

/// A NumPy array of 8 × 8 values of a type.
fn array(kind: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (8, 8), }}");
    let header = format!("{header:117}\n");
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), bytes].concat()
}

/// Copies a file or a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// All files under a path, sorted; the path itself if it is a file.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.iter().flat_map(|entry| files(entry)).collect()
}
