//! Image shapes other than square, channels other than three, and patches other than 16 px.

use std::fs;

use super::support::{
    array, array_of_floats, fashion, json, losses, photos, pretrain, refuses, scratch, simmim, succeeds, text,
};

/// Pre-trains on photos (1 channel) or arrays (5 channels), then reconstructs one of them.
#[track_caller]
fn check(channels: usize, [height, width]: [usize; 2], patch_px: usize, unit_px: usize) {
    let (folder, run) = scratch();
    let data = match channels {
        1 => photos(),
        _ => {
            let data = folder.path().join("data");
            fs::create_dir(&data).unwrap();
            for number in 0..4 {
                array(&data.join(format!("{number}.npy")), height + 3, width + 5, channels, number);
            }
            text(&data)
        }
    };
    let edits = [
        format!("data.channels={channels}"),
        format!("data.image_size=[{height}, {width}]"),
        format!("encoder.patch_px={patch_px}"),
        format!("mask.unit_px={unit_px}"),
        "train.batch_size=2".to_owned(),
    ];
    let mut command = pretrain(&data, &run, &edits.each_ref().map(String::as_str));
    command.args(["--val", &data]);
    let result = json(command);
    assert!(result["val_loss"].as_f64().is_some_and(f64::is_finite), "{result:?}");
    assert!(losses(&run).iter().all(|loss| loss.is_finite() && *loss > 0.0));

    let image = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jpg" || extension == "npy"));
    let mut command = simmim(["reconstruct", "--from"]);
    command.arg(&run).arg("--out").arg(folder.path().join("pictures")).arg(image.unwrap());
    let result = json(command);
    let sheet = image::open(result["pictures"][0]["path"].as_str().unwrap()).unwrap();
    // four pictures in a row, each with the aspect ratio of the input
    assert!(
        sheet.width() > 4 * width as u32 && sheet.height() > height as u32,
        "{:?}",
        (sheet.width(), sheet.height())
    );
}

#[test]
fn reconstruct_says_which_precision_was_trained_in_and_which_predicts() {
    let (folder, run) = scratch();
    let mut command = pretrain(&photos(), &run, &["data.channels=1", "data.image_size=[20, 28]", "encoder.patch_px=2"]);
    command.args(["--set", "mask.unit_px=4", "--set", "train.batch_size=2", "--precision", "f32"]);
    succeeds(command);
    let image = format!("{}/tools-plier1.jpg", photos());
    let mut command = simmim(["reconstruct", "--precision", "bf16", "--from"]);
    command.arg(&run).arg("--out").arg(folder.path().join("pictures")).arg(image);
    let ran = succeeds(command);
    assert!(ran.stderr.contains("in f32; predicting in bf16"), "{}", ran.stderr);
}

#[test]
fn gray_images_pretrain_and_reconstruct_at_any_patch_and_shape() {
    check(1, [20, 28], 2, 4);
    check(1, [20, 30], 5, 5);
    check(1, [16, 24], 8, 8);
}

#[test]
fn images_of_five_channels_pretrain_and_reconstruct_at_any_patch_and_shape() {
    check(5, [12, 8], 2, 2);
    check(5, [20, 10], 5, 10);
    check(5, [24, 40], 8, 8);
}

#[test]
fn color_images_train_with_every_kind_of_position_embedding() {
    let (folder, _) = scratch();
    for (number, edits) in [
        ["encoder.position_bias=none", "encoder.absolute_positions=true"],
        ["encoder.position_bias=per-block", "encoder.absolute_positions=false"],
    ]
    .iter()
    .enumerate()
    {
        let out = folder.path().join(number.to_string());
        let color = ["data.channels=3", "data.normalization=imagenet", "train.batch_size=3"];
        succeeds(pretrain(&photos(), &out, &[&color[..], &edits[..]].concat()));
    }
}

#[test]
fn either_precision_trains() {
    let (folder, _) = scratch();
    for precision in ["f32", "bf16"] {
        let out = folder.path().join(precision);
        let mut command = pretrain(&fashion(), &out, &[]);
        command.args(["--precision", precision]);
        succeeds(command);
        assert!(
            fs::read_to_string(out.join("resolved.toml")).unwrap().contains(&format!("precision = \"{precision}\""))
        );
    }
}

#[test]
fn training_sees_the_tiles_of_large_pictures() {
    let (folder, run) = scratch();
    let picture = format!("{}/others-buffetset.jpg", photos()); // 247 by 320 pixels
    let command = || pretrain(&picture, &run, &["data.tile=100", "data.tile_stride=50", "train.batch_size=4"]);
    let ran = succeeds(command());
    // rows start at 0, 50, 100 and 147, columns at 0, 50, 100, 150, 200 and 220
    assert!(ran.stderr.contains("24 tiles of 1 picture"), "{}", ran.stderr);
    assert!(losses(&run).iter().all(|loss| loss.is_finite() && *loss > 0.0));
    assert!(fs::read_to_string(run.join("log.jsonl")).unwrap().contains("\"waiting_for_data\":0."));
    assert!(succeeds(command()).stdout.contains("done"), "the finished run is recognized");
    let whole = folder.path().join("whole");
    refuses(pretrain(&picture, &whole, &["data.tile_stride=50"]), "`data.tile_stride` is `50`", "data.tile");
    let white = folder.path().join("white.npy");
    array_of_floats(&white, 120, |_| 0.95);
    let edits = ["data.tile=100", "data.tile_content=0.1"];
    refuses(pretrain(&text(&white), &whole, &edits), "no tile of 1 picture", "tile_content");
    assert!(!whole.exists());
}
