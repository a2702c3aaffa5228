//! Lines on stderr: progress, warnings and errors.
//!
//! A stderr that is closed, full or read by nobody costs nothing but its lines, and control characters of file names do
//! not reach a terminal.

use std::io::Write;

/// Writes a line to stderr; a failure to write is ignored, because a run must not end for it.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escaped(text));
}

/// The text with its control characters but tabs, line breaks among them, written as escapes.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |c: char| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        assert_eq!(escaped("naïve ·\u{1b}[31m\nerror"), "naïve ·\\u{1b}[31m\\nerror");
    }
}
