//! One run: a few calls of the command in a folder of its own, and what must be true after them.

use crate::damage::{damage, rename};
use crate::draw::{any_command, from, good_training, words};
use crate::judge::fault;
use crate::process::{Ended, Step, Stream, run, start};
use crate::rng::Rng;
use crate::world::{self, DATA, RUNS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A run under way.
pub(crate) struct Scenario<'a> {
    /// Where the commands run; it begins as a copy of the inputs.
    pub(crate) folder: PathBuf,
    /// An empty folder of a disk of some megabytes, if there is one.
    pub(crate) small_disk: Option<&'a Path>,
    pub(crate) rng: Rng,
    /// What was done, one line each.
    pub(crate) story: Vec<String>,
    pub(crate) faults: Vec<String>,
    /// How often calls ended in each way.
    pub(crate) ends: BTreeMap<String, usize>,
}

impl Scenario<'_> {
    /// Draws what happens, and lets it happen.
    pub(crate) fn play(&mut self) {
        match self.rng.below(100) {
            0..=39 => self.any_call(),
            40..=59 => self.interrupted_training(),
            60..=66 => self.full_disk(),
            67..=71 => self.two_at_once(),
            72..=89 => self.broken_files(),
            90..=95 => self.moved_folder(),
            _ => self.changed_command(),
        }
    }

    /// Any command, perhaps with streams that nobody reads, and perhaps a signal.
    fn any_call(&mut self) {
        let mut step = Step::new(any_command(&mut self.rng));
        if self.rng.happens(15) {
            let streams = [Stream::Closed, Stream::Full, Stream::Unread, Stream::Kept];
            step.stdout = streams[self.rng.below(4)];
            step.stderr = streams[self.rng.below(4)];
        }
        if self.rng.happens(10) {
            step.signals = self.signals(60);
        }
        self.call(&step);
    }

    /// A training that is interrupted a few times ends as if it had not been.
    fn interrupted_training(&mut self) {
        let (steps, every) = (5 + self.rng.below(60), 1 + self.rng.below(30));
        let step = Step::new(good_training("new", steps, every, &mut self.rng));
        for _ in 0..1 + self.rng.below(3) {
            let mut step = step.clone();
            step.signals = self.signals(200);
            if self.rng.happens(15) {
                let streams = [Stream::Closed, Stream::Full, Stream::Unread, Stream::Kept];
                step.stdout = streams[self.rng.below(4)];
                step.stderr = streams[self.rng.below(4)];
            }
            self.call(&step);
        }
        self.must_end(&step, "new", steps);
        if self.rng.happens(30) {
            self.must_equal_undisturbed(&step, steps);
        }
    }

    /// A training that runs out of space goes on once there is some.
    fn full_disk(&mut self) {
        let (steps, every) = (3 + self.rng.below(8), 1 + self.rng.below(4));
        let disk = self.small_disk.filter(|_| self.rng.happens(60));
        let Some(disk) = disk else {
            let step = Step::new(good_training("new", steps, every, &mut self.rng));
            let limited = Step { file_kb: Some(self.rng.below(60) as u64), ..step.clone() };
            self.call(&limited);
            self.must_end(&step, "new", steps);
            return;
        };
        let out = disk.join("new");
        let step = Step::new(good_training(&out.display().to_string(), steps, every, &mut self.rng));
        let filler = disk.join("filler");
        let kb = self.rng.below(300);
        self.say(format!("fill {} but for about {kb} kB", disk.display()));
        fill(&filler, kb);
        self.call(&step);
        fs::remove_file(&filler).unwrap();
        self.must_end(&step, &out.display().to_string(), steps);
        for entry in fs::read_dir(disk).unwrap().flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }

    /// Of two processes on one folder, one is refused or both run one after the other.
    fn two_at_once(&mut self) {
        let (steps, every) = (3 + self.rng.below(40), 1 + self.rng.below(10));
        let step = Step::new(good_training("new", steps, every, &mut self.rng));
        let pause = self.rng.below(60) as u64;
        self.say(format!("{step} & {step}  # {pause} ms later"));
        let first = start(&step, &self.folder, "first");
        std::thread::sleep(std::time::Duration::from_millis(pause));
        let second = start(&step, &self.folder, "second");
        let ended = [first.end(), second.end()];
        for ended in &ended {
            self.judge(&step, ended);
            if ended.code == Some(1) {
                self.faults.push(format!("one of two fails: {}", ended.stderr));
            }
        }
        if ended.iter().all(|ended| ended.code != Some(0)) {
            self.faults.push("none of two processes succeeds".into());
        }
        self.must_end(&step, "new", steps);
    }

    /// Damaged inputs and runs are used or refused.
    fn broken_files(&mut self) {
        let inputs = [RUNS, DATA, &["vit.toml", "finetune.toml", "tokenizer.toml", "palette.safetensors"]].concat();
        let victim = self.rng.pick(&inputs);
        let mut damaged = victim.to_owned();
        for _ in 0..1 + self.rng.below(2) {
            let files = world::files(&self.folder.join(victim));
            let Some(file) = (!files.is_empty()).then(|| &files[self.rng.below(files.len())]) else { break };
            let what = if self.rng.happens(10) { rename(file, &mut self.rng) } else { damage(file, &mut self.rng) };
            damaged = file.strip_prefix(&self.folder).unwrap().display().to_string();
            self.say(format!("{damaged}: {what}"));
        }
        let lines = match victim {
            "vit" | "swin" | "clusters" => self.uses_of_run(victim, "pretrain", &format!("{victim}.toml")),
            "tuned" => self.uses_of_run(victim, "finetune --from vit --val arrays", "finetune.toml"),
            "tok" => self.uses_of_run(victim, "tokenizer", "tokenizer.toml"),
            "palette.safetensors" => vec![format!(
                "pretrain --recipe vit.toml --data arrays --out new --set target.kind=color-clusters --set \
                 target.clusters=4 --set target.palette={victim} --threads 1 --precision f32 --json"
            )],
            _ => {
                let data = if DATA.contains(&victim) { victim } else { "arrays" };
                let commands = [
                    format!("pretrain --recipe vit.toml --data {data} --val {data} --out new"),
                    format!("finetune --from scratch --recipe finetune.toml --data {data} --val {data} --out new"),
                    format!("tokenizer --recipe tokenizer.toml --data {data} --out new"),
                    format!("knn --from vit --data {data} --val arrays"),
                    format!("probe --from vit --data arrays --val {data} --epochs 2"),
                    format!("evaluate --from tuned --data {data}"),
                    format!("palette --data {data} --channels 1 --colors 3 --out new.safetensors"),
                    format!("inspect {victim} --channels 1"),
                    format!("reconstruct --from vit --out new {damaged}"),
                ];
                (0..2).map(|_| format!("{} --json", commands[self.rng.below(commands.len())])).collect()
            }
        };
        for line in lines {
            self.call(&Step::new(words(&line)));
        }
    }

    /// Calls that use a run, with the one that resumes it.
    fn uses_of_run(&mut self, run: &str, command: &str, recipe: &str) -> Vec<String> {
        let steps = 4 + self.rng.below(5);
        let from = match self.rng.below(4) {
            0 => format!("{run}/checkpoints/step-4/model.safetensors"),
            1 if run == "tuned" => format!("{run}/best.safetensors"),
            1 if run == "tok" => format!("{run}/tokenizer.safetensors"),
            _ => run.to_owned(),
        };
        let calls = [
            format!("{command} --recipe {recipe} --data arrays --out {run}"),
            format!("{command} --recipe {recipe} --data arrays --out {run} --set train.max_steps={steps}"),
            format!("inspect {from}"),
            format!("knn --from {from} --data arrays --val arrays"),
            format!("probe --from {from} --data arrays --val arrays --epochs 2"),
            format!("evaluate --from {from} --data arrays"),
            format!("reconstruct --from {from} --out new arrays/a/0.npy"),
            format!("finetune --from {from} --recipe finetune.toml --data arrays --out new"),
            format!(
                "pretrain --recipe vit.toml --data arrays --out new2 --set target.kind=tokens --set \
                 target.tokenizer={from}"
            ),
        ];
        let with_options = |call: &String| match call.starts_with("inspect") {
            true => format!("{call} --json"),
            false => format!("{call} --threads 1 --precision f32 --json"),
        };
        (0..3).map(|_| with_options(&calls[self.rng.below(calls.len())])).collect()
    }

    /// A run whose folder has moved goes on where it is, and so do its images.
    fn moved_folder(&mut self) {
        let (steps, every) = (5 + self.rng.below(30), 1 + self.rng.below(10));
        let step = Step::new(good_training("new", steps, every, &mut self.rng));
        let interrupted = Step { signals: self.signals(150), ..step.clone() };
        self.call(&interrupted);
        if !self.folder.join("new").is_dir() {
            return;
        }
        self.say("mkdir deep; mv new deep/er; mv arrays other; mv pictures others".into());
        fs::create_dir(self.folder.join("deep")).unwrap();
        for (old, new) in [("new", "deep/er"), ("arrays", "other"), ("pictures", "others")] {
            fs::rename(self.folder.join(old), self.folder.join(new)).unwrap();
        }
        let moved = |argument: &String| match argument.as_str() {
            "new" => "deep/er".to_owned(),
            "arrays" => "other".to_owned(),
            "pictures" => "others".to_owned(),
            other => other.replace("=arrays", "=other"),
        };
        let step = Step::new(step.arguments.iter().map(moved));
        self.must_end(&step, "deep/er", steps);
    }

    /// A run that is called again with other values goes on or refuses, and still takes the first ones.
    fn changed_command(&mut self) {
        let (steps, every) = (4 + self.rng.below(20), 1 + self.rng.below(10));
        let step = Step::new(good_training("new", steps, every, &mut self.rng));
        let interrupted = Step { signals: self.signals(100), ..step.clone() };
        self.call(&interrupted);
        let other = Step::new(good_training("new", steps, every, &mut self.rng));
        self.call(&other);
        if other.arguments != step.arguments {
            // whichever of the two began the run
            let first = run(&step, &self.folder);
            self.say(step.to_string());
            self.judge(&step, &first);
            if first.code != Some(0) && run(&other, &self.folder).code != Some(0) {
                self.faults.push(format!("neither command goes on: {}", first.stderr));
            }
        }
        let source = from(&mut self.rng);
        self.call(&Step::new(words(&format!("inspect {source} --json"))));
    }

    /// Signals at random moments, the first within `first_ms`.
    fn signals(&mut self, first_ms: usize) -> Vec<(u64, &'static str)> {
        let name = |rng: &mut Rng| ["INT", "INT", "TERM", "HUP", "KILL"][rng.below(5)];
        let mut signals = vec![(self.rng.below(first_ms) as u64, name(&mut self.rng))];
        if self.rng.happens(25) {
            signals.push((self.rng.below(30) as u64, name(&mut self.rng)));
        }
        signals
    }

    fn say(&mut self, line: String) {
        self.story.push(line);
    }

    fn call(&mut self, step: &Step) -> Ended {
        self.say(step.to_string());
        let ended = run(step, &self.folder);
        self.judge(step, &ended);
        ended
    }

    fn judge(&mut self, step: &Step, ended: &Ended) {
        let end = ended.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        *self.ends.entry(end).or_default() += 1;
        if let Some(fault) = fault(step, ended) {
            self.faults.push(format!("{}: {fault}\n{}", step.arguments[0], ended.stderr.trim_end()));
        }
    }

    /// The same command without disturbance ends the run.
    fn must_end(&mut self, step: &Step, out: &str, steps: usize) {
        let step = step.undisturbed();
        let ended = self.call(&step);
        let result: Value =
            ended.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        if ended.code != Some(0) || result["steps"] != steps {
            self.faults.push(format!("the run in {out} does not go on: {:?} {result}\n{}", ended.code, ended.stderr));
        }
    }

    /// A run that was never disturbed has the same weights.
    fn must_equal_undisturbed(&mut self, step: &Step, steps: usize) {
        let arguments =
            step.arguments.iter().map(|argument| if argument == "new" { "whole" } else { argument.as_str() });
        self.call(&Step::new(arguments));
        let weights =
            |run: &str| fs::read(self.folder.join(run).join(format!("checkpoints/step-{steps}/model.safetensors")));
        if weights("new").ok() != weights("whole").ok() {
            self.faults.push("the interrupted run ends with other weights".into());
        }
    }
}

/// Fills a disk but for about `kb` kilobytes.
fn fill(filler: &Path, kb: usize) {
    use std::io::Write;
    let mut file = fs::File::create(filler).unwrap();
    let mut written = 0u64;
    while file.write_all(&[0; 4096]).is_ok() {
        written += 4096;
    }
    file.set_len(written.saturating_sub(kb as u64 * 1024)).unwrap();
}
