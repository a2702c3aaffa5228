//! `simmim bench` on a tiny model.

use super::support::{fails, json, simmim, succeeds};

const TINY: [&str; 10] =
    ["bench", "--recipe", "demo", "--steps", "2", "--set", "encoder.width=16", "--set", "encoder.depth=1", "--set"];

#[test]
fn bench_measures_steps_their_parts_and_the_peak() {
    for precision in ["f32", "bf16"] {
        let mut command = simmim(TINY);
        command.args(["encoder.heads=2", "--set", "train.batch_size=4", "--precision", precision]);
        let result = json(command);
        for key in [
            "images_per_second",
            "step_ms",
            "gflops",
            "peak_gflops",
            "peak_gflops_one_thread",
            "share_of_peak",
            "forward_images_per_second",
            "loader_images_per_second",
        ] {
            assert!(result[key].as_f64().is_some_and(|value| value > 0.0), "`{key}` in {result:?}");
        }
        assert_eq!((&result["batch_size"], &result["precision"]), (&4.into(), &precision.into()));
        assert!(result["share_of_peak"].as_f64().unwrap() < 1.0, "{result:?}");
        assert_eq!(result["peak_rss_mb"].is_null(), !cfg!(target_os = "linux"));
        assert_eq!(result["phases_ms"].as_object().unwrap().len(), 4);
        assert!(!result["operations_ms"].as_object().unwrap().is_empty());
    }
}

#[test]
fn bench_prints_a_table_without_json() {
    let mut command = simmim(TINY);
    command.args(["encoder.heads=2", "--set", "train.batch_size=4"]);
    let ran = succeeds(command);
    for part in ["images/s", "% of the peak", "product peak", "parts of a step", "operations of a step"] {
        assert!(ran.stdout.contains(part), "{part} in {}", ran.stdout);
    }
}

#[test]
fn the_peak_and_the_optimizer_are_measured_alone() {
    let peak = json(simmim(["bench", "--peak"]));
    assert!(peak["peak_gflops"].as_f64().unwrap() > 0.0);
    let adamw = json(simmim(["bench", "--adamw", "20000"]));
    assert_eq!(adamw["parameters"], 20000);
    assert!(adamw["times_a_copy"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_loader_is_measured_alone_on_images_of_ones_own() {
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
    let speed = json(simmim(["bench", "--data", images, "--steps", "1", "--set", "data.image_size=64"]));
    assert!(speed["loader_images_per_second"].as_f64().unwrap() > 0.0, "{speed:?}");
    assert_eq!((&speed["skipped_images"], &speed["data"]), (&0.into(), &images.into()));
    fails(simmim(["bench", "--data", "no/such/folder"]), 2, "no/such/folder");
}

#[test]
fn no_steps_are_no_measurement() {
    fails(simmim(["bench", "--steps", "0"]), 2, "a whole number above 0");
}
