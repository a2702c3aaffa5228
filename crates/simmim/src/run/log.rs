//! `log.jsonl`: the log of a run, one JSON object per line.

use super::files::with_path;
use crate::error::Result;
use serde_json::{Map, Value};
use std::fs;
use std::io;
use std::path::Path;

pub(super) const LOG_FILE: &str = "log.jsonl";

/// One line of a log.
pub type LogEntry = Map<String, Value>;

/// Log entries of the run in a folder.
///
/// # Errors
/// If the log cannot be read.
pub fn read_log(run: &Path) -> Result<Vec<LogEntry>> {
    Ok(read_lines(&run.join(LOG_FILE))?)
}

/// Reads a `log.jsonl`. A last line that a crash cut short is left out.
///
/// # Errors
/// If the file cannot be read, or a line before the last is not a JSON object; the message names file and line.
fn read_lines(path: &Path) -> io::Result<Vec<LogEntry>> {
    let bytes = fs::read(path).map_err(|error| with_path(error, path))?;
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let mut objects = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        // complete lines end with a newline, so the last piece is either empty or cut short
        let may_be_cut_short = index + 1 == lines.len();
        match serde_json::from_slice(line) {
            Ok(object) => objects.push(object),
            Err(_) if may_be_cut_short => {}
            Err(error) => {
                let message = format!("line {} is not a JSON object: {error}", index + 1);
                let error = io::Error::new(io::ErrorKind::InvalidData, message);
                return Err(with_path(error, path));
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> io::Result<Vec<LogEntry>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, content).unwrap();
        read_lines(&path)
    }

    #[test]
    fn every_complete_line_is_read_and_a_cut_last_one_is_not() {
        let check = |content: &[u8], expected: &[u64]| {
            let read = read(content).unwrap();
            let steps: Vec<u64> = read.iter().map(|line| line["step"].as_u64().unwrap()).collect();
            assert_eq!(steps, expected, "{}", String::from_utf8_lossy(content));
        };
        check(b"", &[]);
        check(b"{\"step\": 1}\n{\"step\": 2}\n", &[1, 2]);
        check(b"{\"step\": 1}\r\n\r\n{\"step\": 2}\r\n", &[1, 2]);
        check(b"{\"step\": 1}\n{\"step\": 2}", &[1, 2]);
        check(b"{\"step\": 1}\n{\"step\": 2", &[1]);
        check(b"{\"step\": 1}\n{\"step\": 2, \"file\": \"\xc3", &[1]);
        check(b"{\"st", &[]);
    }

    #[test]
    fn a_broken_line_before_the_last_is_an_error_that_says_which() {
        let check = |content: &[u8], line: &str| {
            let message = read(content).unwrap_err().to_string();
            assert!(message.contains("log.jsonl") && message.contains(line), "{message}");
        };
        check(b"{\"step\": 1}\n{\"st\n{\"step\": 3}\n", "line 2");
        check(b"{\"step\": 1}\n{\"st\n", "line 2");
        check(b"[1]\n{\"step\": 3}\n", "line 1");
    }

    #[test]
    fn an_absent_log_is_named() {
        let message = read_lines(Path::new("absent.jsonl")).unwrap_err().to_string();
        assert!(message.contains("absent.jsonl"), "{message}");
    }
}
