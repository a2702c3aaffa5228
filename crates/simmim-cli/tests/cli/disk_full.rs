//! A disk without room: the run fails, says where, and what was saved before is still there.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::{checkpoints, fails, fashion, json, pretrain, scratch, succeeds, tensors};

const EDITS: [&str; 3] = ["train.max_updates=6", "train.checkpoint_every_updates=2", "encoder.width=64"];

/// The command in a shell in which no file can grow beyond `kilobytes`; writing more is an error, not a signal.
fn limited(command: &Command, kilobytes: u64) -> Command {
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kilobytes} || exit 77; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

fn can_limit() -> bool {
    Command::new("bash").args(["-c", "trap '' XFSZ; ulimit -f 1"]).status().is_ok_and(|status| status.success())
}

fn kilobytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len() / 1024
}

#[test]
fn a_full_disk_ends_the_run_and_spares_the_last_checkpoint() {
    if !can_limit() {
        eprintln!("skipped: this machine has no bash with `ulimit -f`");
        return;
    }
    let (folder, out) = scratch();
    let whole = folder.path().join("whole");
    succeeds(pretrain(&fashion(), &whole, &EDITS));

    // step-4 is there, step-6 does not fit
    succeeds(pretrain(&fashion(), &out, &EDITS));
    fs::remove_dir_all(out.join("checkpoints/step-6")).unwrap();
    let saved = tensors(&out, 4);
    let room = kilobytes(&whole.join("checkpoints/step-6/model.safetensors"));
    assert!(room > kilobytes(&whole.join("report.html")), "only the checkpoint is to be too large");
    let ran = fails(limited(&pretrain(&fashion(), &out, &EDITS), room - 1), 1, "step-6");
    assert!(ran.stderr.contains("hint: free some space"), "{}", ran.stderr);
    assert_eq!(checkpoints(&out), ["step-4"], "nothing half-written stays");
    assert!(tensors(&out, 4) == saved);

    // with room again the same command goes on to the same end
    assert_eq!(json(pretrain(&fashion(), &out, &EDITS))["updates"], 6);
    assert!(tensors(&out, 6) == tensors(&whole, 6));
}
