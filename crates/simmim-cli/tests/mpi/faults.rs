//! Ranks that die, hang, differ or are stopped: the job ends with a message that names them, and resumes.

use super::support::{
    Ran, VIT, checkpoints, distance, end_of, last, on_ranks, one_job, pretrain, rank_pids, run, signal, succeeds,
    values, wait_for_checkpoint,
};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const RECIPE: &str = "pretrain-vit-cifar";

/// Long enough to be disturbed in the middle.
const LONG: &[&str] = &["train.max_steps=120", "train.checkpoint_every_steps=10"];

fn arguments(out: &Path) -> Vec<String> {
    pretrain(RECIPE, out, &[VIT, LONG].concat())
}

/// Starts a job on two ranks, disturbs it after its second checkpoint, and returns how it ended.
fn disturbed(out: &Path, disturb: impl FnOnce(&Child, &[u32])) -> Ran {
    let mut command = on_ranks(2, &arguments(out));
    let mut command = with_default_signals(&mut command);
    let job = command.args(["--rank-timeout", "3"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_checkpoint(out, 20);
    let pids = rank_pids(&job);
    assert_eq!(pids.len(), 2, "two ranks run");
    disturb(&job, &pids);
    end_of(job)
}

/// The same command with no signal ignored from its start, even where the tests run under `nohup`.
fn with_default_signals(command: &mut Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped.arg("--default-signal=INT,HUP,TERM,USR1").arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null());
    wrapped
}

/// Resumes on two ranks, and compares with a run that was not disturbed.
fn resumes(folder: &Path, out: &Path) {
    assert!(checkpoints(out).last().is_some_and(|step| (20..120).contains(step)), "{:?}", checkpoints(out));
    let whole = folder.join("whole");
    succeeds(&mut on_ranks(2, &arguments(&whole)));
    succeeds(&mut on_ranks(2, &arguments(out)));
    for file in ["model.safetensors", "average.safetensors", "optimizer.safetensors"] {
        assert!(values(&last(out, file)) == values(&last(&whole, file)), "{file} has the bits of the undisturbed run");
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_job_which_resumes() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let ran = disturbed(&out, |_, pids| signal("KILL", pids[1]));
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.stderr.contains("rank 1") && ran.stderr.contains("signal 9"), "mpirun says it: {ran:#?}");
    resumes(folder.path(), &out);
}

#[test]
fn a_rank_that_is_killed_takes_its_part_of_the_state_along_and_the_job_resumes() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let divided = ["--set", "train.shard=gradients", "--overlap", "on"].map(str::to_owned);
    let mut command = on_ranks(2, &[arguments(&out), divided.to_vec()].concat());
    let job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_checkpoint(&out, 20);
    signal("KILL", rank_pids(&job)[1]);
    assert_ne!(end_of(job).code, Some(0));
    resumes(folder.path(), &out);
}

#[test]
fn a_rank_that_is_stopped_is_named() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let ran = disturbed(&out, |_, pids| signal("STOP", pids[1]));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("error: rank 1 has given no sign of life for 3 s"), "{ran:#?}");
    assert!(ran.stderr.contains("rank 0 (") && ran.stderr.contains("waits in an all-reduce of"), "{ran:#?}");
    let out = folder.path().join("first");
    let ran = disturbed(&out, |_, pids| signal("STOP", pids[0]));
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("error: rank 0 has given no sign of life for 4 s"), "{ran:#?}");
}

#[test]
fn a_signal_to_any_rank_saves_and_the_run_resumes_on_another_number_of_ranks() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    succeeds(&mut on_ranks(1, &arguments(&whole)));
    for (name, rank) in [("TERM", 1), ("USR1", 0)] {
        let out = folder.path().join(name);
        let ran = disturbed(&out, |_, pids| signal(name, pids[rank]));
        assert_eq!(ran.code, Some(130), "{ran:#?}");
        let step = *checkpoints(&out).last().unwrap();
        assert!(ran.stdout.contains(&format!("stopped after step {step} of 120")), "{ran:#?}");
        for world in [4, 1] {
            if world == 4 {
                // a part of the way on four ranks, and to the end on one
                let job = on_ranks(4, &arguments(&out)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                wait_for_checkpoint(&out, step.next_multiple_of(10) + 10);
                rank_pids(&job).first().into_iter().for_each(|pid| signal("USR1", *pid));
                end_of(job);
            } else {
                succeeds(&mut on_ranks(1, &arguments(&out)));
            }
        }
        let apart = distance(&values(&last(&whole, "model.safetensors")), &values(&last(&out, "model.safetensors")));
        eprintln!("stopped by {name}, resumed on 4 and 1 ranks: {apart:.1e} from one rank after 120 steps");
        // the rounding of other orders of summation, which grows over 120 steps
        assert!(apart < 1e-6, "{apart:e}");
    }
}

#[test]
fn ranks_with_another_recipe_seed_or_data_are_named() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let usual = pretrain(RECIPE, &out, &[VIT, &["train.max_steps=3"]].concat());
    let edited = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut other = usual.clone();
        edit(&mut other);
        other
    };
    let few = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images");
    for (other, said) in [
        (
            edited(&|other| other.extend(["--set".into(), "train.base_lr=0.5".into()])),
            "rank 1: this rank has another recipe",
        ),
        (
            edited(&|other| *other.iter_mut().find(|value| **value == "3").unwrap() = "4".into()),
            "rank 1: this rank has another seed",
        ),
        (edited(&|other| other[4] = few.into()), "rank 1: "),
        (edited(&|other| other[4] = "nowhere".into()), "rank 1: "),
    ] {
        let mut command = on_ranks(1, &usual);
        command.args([":", "-n", "1", env!("CARGO_BIN_EXE_simmim")]).args(&other);
        let ran = run(&mut command);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains("hint: "), "{ran:#?}");
        assert_eq!(ran.stderr.matches("error: ").count(), 1, "one rank says it: {ran:#?}");
        assert!(!out.exists(), "a run that does not begin leaves no folder");
    }
}

#[test]
fn a_full_disk_ends_all_ranks_and_the_run_resumes() {
    let _one = one_job();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |size: &str| {
        Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&disk).stderr(Stdio::null()).status()
    };
    if !mount("size=1800k").is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    let out = disk.join("run");
    // all checkpoints of half a megabyte each are kept, and the last one finds the disk full
    let edits = ["train.max_steps=40", "train.checkpoint_every_steps=10", "train.keep_checkpoints=9"];
    let arguments = pretrain(RECIPE, &out, &[VIT, &["encoder.width=32"], &edits].concat());
    let full = run(&mut on_ranks(2, &arguments));
    let left = checkpoints(&out);
    let more = Command::new("mount").args(["-o", "remount,size=20m"]).arg(&disk).status().unwrap();
    let resumed = run(&mut on_ranks(2, &arguments));
    let at_end = checkpoints(&out);
    Command::new("umount").arg(&disk).status().unwrap();
    assert_eq!(full.code, Some(1), "{full:#?}");
    assert!(full.stderr.contains("hint: free some space"), "{full:#?}");
    assert!(more.success() && !left.is_empty() && *left.last().unwrap() < 40, "{left:?}");
    assert_eq!((resumed.code, at_end.last()), (Some(0), Some(&40)), "{resumed:#?}");
}
