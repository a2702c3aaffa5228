//! A full disk: the run fails, the error names the file, and earlier checkpoints are unchanged.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::{checkpoints, fails, fashion, json, pretrain, scratch, succeeds, tensors};

const EDITS: [&str; 3] = ["train.max_steps=6", "train.checkpoint_every_steps=2", "encoder.width=64"];

/// The command in a shell that limits the size of files to `kilobytes`; writing more is an error, not a signal.
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

    // `step-4` is saved, `step-6` does not fit
    succeeds(pretrain(&fashion(), &out, &EDITS));
    fs::remove_dir_all(out.join("checkpoints/step-6")).unwrap();
    let saved = tensors(&out, 4);
    let room = kilobytes(&whole.join("checkpoints/step-6/model.safetensors"));
    assert!(room > kilobytes(&whole.join("report.html")), "only the checkpoint is too large");
    let ran = fails(limited(&pretrain(&fashion(), &out, &EDITS), room - 1), 1, "step-6");
    assert!(ran.stderr.contains("hint: free some space"), "{}", ran.stderr);
    assert_eq!(checkpoints(&out), ["step-4"], "no partial checkpoint is left");
    assert!(tensors(&out, 4) == saved);

    // with free space, the same command resumes and ends with the same bits
    assert_eq!(json(pretrain(&fashion(), &out, &EDITS))["steps"], 6);
    assert!(tensors(&out, 6) == tensors(&whole, 6));
}
