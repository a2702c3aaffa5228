//! Versions that files carry: what another version wrote may be unknown to this one, and is not damaged.

use crate::error::Error;
use std::path::Path;

/// The version of this crate.
pub(crate) const THIS: &str = env!("CARGO_PKG_VERSION");

/// The error for a file that `version` wrote, if the file says which, and that does not have the expected form.
pub(crate) fn unfit(path: &Path, version: Option<&str>, reason: String) -> Error {
    match version {
        Some(version) if version != THIS => {
            Error::OtherVersion { path: path.to_owned(), version: version.to_owned(), reason }
        }
        Some(_) | None => Error::Damaged { path: path.to_owned(), reason },
    }
}

/// Whether a version is later than this one; one that is not made of numbers is.
pub(crate) fn is_later(version: &str) -> bool {
    let numbers = |text: &str| text.split(['.', '-', '+']).take(3).map(str::parse).collect::<Result<Vec<u64>, _>>();
    match (numbers(version), numbers(THIS)) {
        (Ok(theirs), Ok(ours)) => theirs > ours,
        (Err(_), _) | (_, Err(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (version, expected) in
            [(THIS, false), ("0.0.99", false), ("99.0.0", true), ("0.100.0", true), ("next", true)]
        {
            assert_eq!(is_later(version), expected, "{version}");
        }
    }
}
