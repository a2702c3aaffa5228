//! Output that nobody reads, and signals that were ignored when the command began.

use super::support::{checkpoints, fashion, pretrain, refuses, scratch, simmim, text, with_default_signals};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[cfg(unix)]
#[test]
fn a_run_goes_on_when_nobody_reads_its_stderr() {
    let (_folder, out) = scratch();
    let mut command = pretrain(&fashion(), &out, &["train.checkpoint_every_steps=1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(checkpoints(&out).contains(&"step-4".to_owned()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_when_its_stderr_is_full() {
    let (_folder, out) = scratch();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = pretrain(&fashion(), &out, &[]).stdout(Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(checkpoints(&out).contains(&"step-4".to_owned()));
}

/// Starts a long run from a shell that ignores `ignored`, sends it `signal` after its first step, and returns whether
/// it stopped within `patience`.
#[cfg(target_os = "linux")]
fn stops(ignored: &str, signal: &str, patience: Duration) -> bool {
    let (_folder, out) = scratch();
    let run = pretrain(&fashion(), &out, &["train.max_steps=100000", "train.checkpoint_every_steps=100000"]);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("trap '' {ignored}; exec \"$0\" \"$@\"")).arg(run.get_program()).args(run.get_args());
    let mut child = with_default_signals(&shell).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !fs::read_to_string(out.join("log.jsonl")).unwrap_or_default().contains("\"loss\"") {
        assert!(started.elapsed() < Duration::from_secs(60), "the run does not begin");
        sleep(Duration::from_millis(5));
    }
    let kill = |signal: &str| {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status().unwrap();
        assert!(status.success());
    };
    kill(signal);
    let sent = Instant::now();
    let mut has_stopped = false;
    while !has_stopped && sent.elapsed() < patience {
        sleep(Duration::from_millis(10));
        has_stopped = child.try_wait().unwrap().is_some();
    }
    let _ = child.kill();
    child.wait().unwrap();
    has_stopped
}

#[cfg(target_os = "linux")]
#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    assert!(!stops("HUP", "HUP", Duration::from_secs(2)), "as under nohup");
    assert!(!stops("INT", "INT", Duration::from_secs(2)), "as in a background job");
    assert!(stops("HUP", "TERM", Duration::from_secs(60)));
    assert!(stops("INT", "HUP", Duration::from_secs(60)));
}

#[test]
fn control_characters_of_names_do_not_reach_the_terminal() {
    let (folder, _) = scratch();
    for name in ["c\nerror: forged line.png", "a\u{1b}[31mb.png"] {
        if fs::write(folder.path().join(name), "no picture").is_err() {
            return; // a file system without such names
        }
    }
    let ran = super::support::succeeds(simmim(["inspect", &text(folder.path())]));
    let all = ran.stdout + &ran.stderr;
    assert!(!all.contains('\u{1b}') && !all.contains("\nerror: forged"), "{all:?}");
    assert!(all.contains("c\\nerror: forged line.png") && all.contains("a\\u{1b}[31mb.png"), "{all:?}");
    refuses(simmim(["inspect", "no\nerror: forged"]), "no\\nerror: forged", "");
}
