//! Runs the command with signals, limits and streams of any kind, and says how it ended.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Computing time after which a command hangs. That of a clock would depend on what else the machine does.
const MOST_COMPUTING: Duration = Duration::from_secs(30);

/// Time after which a command hangs that waits for something instead of computing.
const MOST_WAITING: Duration = Duration::from_secs(120);

/// Time between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Units of the computing times of processes, per second (`proc(5)`: `USER_HZ`, 100 on every architecture of today).
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process in kilobytes: what asks for more than any of these runs could use ends by an abort.
const MEMORY_KB: u64 = 8 << 20;

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stream {
    /// To a file, and then into [`Ended`].
    Kept,
    /// Nowhere: the descriptor is closed.
    Closed,
    /// To a full disk.
    Full,
    /// To a pipe whose reader has gone.
    Unread,
}

/// One call of the command.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) arguments: Vec<String>,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    /// Largest file in kilobytes.
    pub(crate) file_kb: Option<u64>,
    /// Signals, each with the milliseconds from the one before it.
    pub(crate) signals: Vec<(u64, &'static str)>,
}

impl Step {
    pub(crate) fn new(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { arguments, stdout: Stream::Kept, stderr: Stream::Kept, file_kb: None, signals: Vec::new() }
    }

    /// The same call, undisturbed.
    pub(crate) fn undisturbed(&self) -> Self {
        Self::new(self.arguments.clone())
    }

    /// The script of the shell around the command.
    fn script(&self) -> String {
        let limit = self.file_kb.map_or(String::new(), |kb| format!("trap '' XFSZ; ulimit -f {kb}; "));
        let to = |stream: Stream, number: usize| match stream {
            Stream::Kept | Stream::Unread => String::new(),
            Stream::Closed => format!(" {number}>&-"),
            Stream::Full => format!(" {number}>/dev/full"),
        };
        format!("ulimit -v {MEMORY_KB}; {limit}exec \"$@\"{}{}", to(self.stdout, 1), to(self.stderr, 2))
    }
}

impl fmt::Display for Step {
    /// A line for a shell, with the signals as a comment.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(kb) = self.file_kb {
            write!(f, "trap '' XFSZ; ulimit -f {kb}; ")?;
        }
        write!(f, "simmim")?;
        for argument in &self.arguments {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:".contains(c);
            match !argument.is_empty() && argument.chars().all(is_plain) {
                true => write!(f, " {argument}")?,
                false => write!(f, " '{}'", argument.replace('\'', "'\\''"))?,
            }
        }
        for (stream, number) in [(self.stdout, 1), (self.stderr, 2)] {
            match stream {
                Stream::Kept => {}
                Stream::Closed => write!(f, " {number}>&-")?,
                Stream::Full => write!(f, " {number}>/dev/full")?,
                Stream::Unread => write!(f, " {number}> >(true)")?,
            }
        }
        self.signals.iter().try_for_each(|(ms, name)| write!(f, "  # {name} after {ms} ms"))
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// The signal that it died of.
    pub(crate) signal: Option<i32>,
    pub(crate) hangs: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Signals that were sent before it ended.
    pub(crate) sent: Vec<&'static str>,
}

/// A call that goes on.
pub(crate) struct Running<'a> {
    step: &'a Step,
    child: Child,
    name: String,
}

/// Runs a step in a folder.
pub(crate) fn run(step: &Step, folder: &Path) -> Ended {
    start(step, folder, "").end()
}

/// Starts a step in a folder; `name` tells the outputs of steps apart that run at the same time.
pub(crate) fn start<'a>(step: &'a Step, folder: &Path, name: &str) -> Running<'a> {
    let mut command = Command::new("env");
    // no signal may be ignored from the start, even where this runs in the background
    command.args(["--default-signal=INT,HUP,TERM", "bash", "-c", &step.script(), "bash"]);
    command.arg(env!("CARGO_BIN_EXE_simmim")).args(&step.arguments).current_dir(folder).stdin(Stdio::null());
    let name = format!("{}.output{name}", folder.display());
    let stream = |stream: Stream, number: usize| match stream {
        Stream::Unread => Stdio::piped(),
        Stream::Kept | Stream::Closed | Stream::Full => File::create(format!("{name}{number}")).unwrap().into(),
    };
    let mut child = command.stdout(stream(step.stdout, 1)).stderr(stream(step.stderr, 2)).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    Running { step, child, name }
}

/// Computing time of all threads of a process; none if it has just ended.
fn computed(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // the name in parentheses is the second field and may contain anything; those of user and system time are the 14th
    // and 15th
    let (_, after_name) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_SECOND)
}

impl Running<'_> {
    /// Sends the signals and waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let mut sent = Vec::new();
        let mut signals = self.step.signals.iter();
        let mut next = signals.next();
        let (mut since_signal, mut waited, mut computed_before) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        let (status, hangs) = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break (status, false);
            }
            if let Some((ms, name)) = next
                && since_signal.elapsed() >= Duration::from_millis(*ms)
            {
                let _ = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
                sent.push(*name);
                (since_signal, waited, computed_before) = (Instant::now(), Duration::ZERO, computed(self.child.id()));
                next = signals.next();
            }
            if waited > MOST_WAITING || computed(self.child.id()).saturating_sub(computed_before) > MOST_COMPUTING {
                let _ = self.child.kill();
                break (self.child.wait().unwrap(), true);
            }
            // looks are counted, so that time in which this process is stopped is not
            sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        };
        let text = |number: usize| {
            let path = format!("{}{number}", self.name);
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
            let _ = fs::remove_file(path);
            text
        };
        let (stdout, stderr) = (text(1), text(2));
        Ended { code: status.code(), signal: status.signal(), hangs, stdout, stderr, sent }
    }
}
