//! Which built-in recipe suits a collection of images, and the command that trains with it.
//!
//! The limits are our judgment, after what the recipes say of themselves; no measurement stands behind them.

use crate::recipe::{BUILT_IN, resolve};
use simmim_data::{Depth, Scan};
use std::collections::BTreeMap;

/// Images whose shorter side is at most this long, typically, suit the recipe for 32 × 32 pixels.
const SMALL_PX: usize = 48;
/// From this side on the recipes for 192 and 224 pixels suit as they are; below it they are made for smaller patches.
const LARGE_PX: usize = 145;
/// With fewer images than this a small network is wide enough.
const FEW: usize = 5_000;
/// From this number of images on ViT-B is worth its time.
const MANY: usize = 200_000;

/// A built-in recipe, and what to change in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Its name.
    pub recipe: &'static str,
    /// What it is, as it says itself.
    pub title: &'static str,
    /// Values of `--set`.
    pub edits: Vec<String>,
}

/// Returns the recipe for images of these sizes and kinds; `None` if none of them can be read.
pub fn suitable(scan: &Scan) -> Option<Suggestion> {
    let channels = match scan.sizes?.channels {
        3 if scan.stored.keys().all(|stored| stored.channels < 3) => 1,
        channels => channels,
    };
    let side = typical_side(&scan.shapes)?;
    let readable: usize = scan.shapes.values().sum();
    let name = match (side, readable) {
        (..=SMALL_PX, _) => "pretrain-vit-cifar",
        (_, ..FEW) => "pretrain-vit-photos-192",
        (_, ..MANY) => "pretrain-vit-s16-224",
        (_, _) => "pretrain-vit-b16-224",
    };
    let mut edits = Vec::new();
    if side <= SMALL_PX {
        // the next multiple of the patch
        let image_px = side.next_multiple_of(4).max(16);
        edits.extend((image_px != 32).then(|| format!("data.image_size={image_px}")));
    } else if side < LARGE_PX {
        // half of the patch and of the mask unit, for half of the size
        let image_px = (side / 32 * 32).max(64);
        edits.push(format!("data.image_size={image_px}"));
        edits.extend(["encoder.patch_px=8", "mask.unit_px=16"].map(str::to_owned));
    }
    if channels != 3 {
        edits.push(format!("data.channels={channels}"));
    }
    // the recipes normalize as for photographs of 8 bits
    let deep: usize =
        scan.stored.iter().filter(|(stored, _)| stored.depth != Depth::Bits8).map(|(_, count)| count).sum();
    if channels != 3 || 2 * deep > readable {
        edits.push("data.normalization=measured".into());
    }
    let batch_size = resolve(name, &[]).ok()?.train.batch_size;
    if readable < batch_size {
        edits.push(format!("train.batch_size={readable}"));
    }
    let built_in = BUILT_IN.iter().find(|recipe| recipe.name == name)?;
    let title = built_in.text.lines().next().unwrap_or_default().trim_start_matches("# ");
    Some(Suggestion { recipe: built_in.name, title, edits })
}

/// The median of the shorter sides.
fn typical_side(shapes: &BTreeMap<[usize; 2], usize>) -> Option<usize> {
    let mut sides: BTreeMap<usize, usize> = BTreeMap::new();
    for ([height, width], count) in shapes {
        *sides.entry(*height.min(width)).or_default() += count;
    }
    let half = shapes.values().sum::<usize>().div_ceil(2);
    let mut below = 0;
    sides.into_iter().find_map(|(side, count)| {
        below += count;
        (below >= half).then_some(side)
    })
}

impl Suggestion {
    /// The command that trains on `data`, as it is typed in a shell; `RUN` stands for a folder.
    pub fn command(&self, data: &str) -> String {
        let edits: String = self.edits.iter().map(|edit| format!(" --set {edit}")).collect();
        format!("simmim pretrain --recipe {} --data {} --out RUN{edits}", self.recipe, in_shell(data))
    }
}

/// The text as one word of a POSIX shell.
fn in_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./,:+@%=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::{Duplicates, PassedOver, SeveralFrames, Sizes, Stored};

    fn scan(side: usize, count: usize, channels: usize, depth: Depth) -> Scan {
        let (height, width) = (side, 2 * side);
        Scan {
            count,
            classes: Vec::new(),
            unlabeled: count,
            unreadable: Vec::new(),
            passed_over: PassedOver::new(),
            sizes: Some(Sizes {
                min_height: height,
                max_height: height,
                min_width: width,
                max_width: width,
                channels: 3,
            }),
            shapes: BTreeMap::from([([height, width], count)]),
            stored: BTreeMap::from([(Stored { channels, depth }, count)]),
            normalization: None,
            several_frames: SeveralFrames::default(),
            duplicates: Duplicates::default(),
        }
    }

    #[track_caller]
    fn check(scan: &Scan, recipe: &str, edits: &[&str]) {
        let found = suitable(scan).unwrap();
        assert_eq!(
            (found.recipe, &found.edits[..]),
            (recipe, &edits.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..])
        );
        resolve(found.recipe, &found.edits).unwrap();
    }

    #[test]
    fn a_suggested_recipe_is_valid_and_made_for_the_images() {
        let color = |side, count| scan(side, count, 3, Depth::Bits8);
        check(&color(32, 50_000), "pretrain-vit-cifar", &[]);
        check(&color(28, 50_000), "pretrain-vit-cifar", &["data.image_size=28"]);
        check(&color(1, 128), "pretrain-vit-cifar", &["data.image_size=16"]);
        check(&color(48, 128), "pretrain-vit-cifar", &["data.image_size=48"]);
        let half = |px| [format!("data.image_size={px}"), "encoder.patch_px=8".into(), "mask.unit_px=16".into()];
        for (side, px) in [(49, 64), (96, 96), (127, 96), (144, 128)] {
            let edits = half(px);
            check(&color(side, 4999), "pretrain-vit-photos-192", &edits.each_ref().map(String::as_str));
            check(&color(side, 5000), "pretrain-vit-s16-224", &edits.each_ref().map(String::as_str));
        }
        check(&color(145, 300), "pretrain-vit-photos-192", &[]);
        check(&color(500, 31), "pretrain-vit-photos-192", &["train.batch_size=31"]);
        check(&color(500, 199_999), "pretrain-vit-s16-224", &[]);
        check(&color(500, 200_000), "pretrain-vit-b16-224", &[]);
    }

    #[test]
    fn gray_and_deep_images_are_measured() {
        let gray = ["data.image_size=28", "data.channels=1", "data.normalization=measured"];
        check(&scan(28, 9000, 1, Depth::Bits8), "pretrain-vit-cifar", &gray);
        check(&scan(28, 9000, 2, Depth::Bits8), "pretrain-vit-cifar", &gray);
        check(&scan(32, 9000, 4, Depth::Bits16), "pretrain-vit-cifar", &["data.normalization=measured"]);
        check(&scan(32, 9000, 3, Depth::Float), "pretrain-vit-cifar", &["data.normalization=measured"]);
        let mut bands = scan(32, 9000, 5, Depth::Bits8);
        bands.sizes = bands.sizes.map(|sizes| Sizes { channels: 5, ..sizes });
        check(&bands, "pretrain-vit-cifar", &["data.channels=5", "data.normalization=measured"]);
    }

    #[test]
    fn nothing_suits_no_images() {
        assert_eq!(suitable(&Scan { sizes: None, shapes: BTreeMap::new(), ..scan(32, 0, 3, Depth::Bits8) }), None);
    }

    #[test]
    fn half_of_the_images_decide() {
        let shapes = BTreeMap::from([([10, 20], 2), ([30, 20], 1), ([99, 98], 2)]);
        assert_eq!(typical_side(&shapes), Some(20));
        assert_eq!(typical_side(&BTreeMap::new()), None);
    }

    #[test]
    fn a_command_can_be_pasted() {
        let suggestion = Suggestion { recipe: "demo", title: "", edits: vec!["a.b=1".into()] };
        let check = |data: &str, expected: &str| {
            let command = format!("simmim pretrain --recipe demo --data {expected} --out RUN --set a.b=1");
            assert_eq!(suggestion.command(data), command);
        };
        check("photos/a-1.tar,b", "photos/a-1.tar,b");
        check("a-{00..04}.tar", "'a-{00..04}.tar'");
        check("my photos", "'my photos'");
        check("it's $HOME", r"'it'\''s $HOME'");
    }
}
