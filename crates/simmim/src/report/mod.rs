//! What a run leaves for people: one self-contained HTML page, made from its log and pictures.

mod axis;
mod chart;
mod finetune;
mod page;
mod run;
mod tokenizer;

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

pub use axis::Scale;
pub use chart::{Chart, Series, Style};
pub use finetune::finetune_page;
pub use page::{Number, Page, Section};
pub use run::run_page;
pub use tokenizer::tokenizer_page;

use crate::files::with_path;

/// Reads a `log.jsonl`: one JSON object a line. A last line that a crash cut short is left out.
///
/// # Errors
/// If the file cannot be read, or a line before the last is no JSON object; the message names file
/// and line.
pub fn read_log(path: &Path) -> io::Result<Vec<Map<String, Value>>> {
    let bytes = fs::read(path).map_err(|error| with_path(error, path))?;
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let mut objects = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        // a complete line ends with a newline, so that the last piece is empty or cut short
        let may_be_cut_short = index + 1 == lines.len();
        match serde_json::from_slice(line) {
            Ok(object) => objects.push(object),
            Err(_) if may_be_cut_short => {}
            Err(error) => {
                let message = format!("line {} is no json object: {error}", index + 1);
                let error = io::Error::new(io::ErrorKind::InvalidData, message);
                return Err(with_path(error, path));
            }
        }
    }
    Ok(objects)
}

/// Text as it stands between tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> io::Result<Vec<Map<String, Value>>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, content).unwrap();
        read_log(&path)
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
        let message = read_log(Path::new("absent.jsonl")).unwrap_err().to_string();
        assert!(message.contains("absent.jsonl"), "{message}");
    }

    #[test]
    fn markup_in_text_is_inert() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("plain – é", "plain – é");
        check("<b>&\"'", "&lt;b&gt;&amp;&quot;&#39;");
    }
}
