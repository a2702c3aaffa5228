//! Addresses of archives in remote stores, and what of them may be shown: a password or a signature may be a part of one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The schemes that are read.
const SCHEMES: &[&str] = &["http", "https", "s3"];

/// The address of an object in a store.
#[derive(Clone)]
pub(super) struct Address {
    /// As given, with its secrets.
    #[cfg(feature = "remote")]
    text: String,
    shown: PathBuf,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown.display())
    }
}

impl Address {
    /// Reads an item of a data specification; `None` if it is a path.
    ///
    /// # Errors
    ///
    /// [`Error::BadAddress`] if its scheme is not read, or it contains a wildcard.
    pub(super) fn of(item: &str) -> Option<Result<Self>> {
        let scheme = scheme(item)?;
        let address = Self {
            #[cfg(feature = "remote")]
            text: item.to_owned(),
            shown: without_secrets(item).into(),
        };
        Some(if !SCHEMES.contains(&scheme) {
            Err(address.bad("only `http://`, `https://` and `s3://` are read"))
        } else if address.shown.to_string_lossy().contains('*') {
            Err(address.bad("a store is not searched for what a wildcard matches"))
        } else {
            Ok(address)
        })
    }

    /// The address without user name, password and query.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// The error of an address that cannot be used.
    pub(super) fn bad(&self, fault: &'static str) -> Error {
        Error::BadAddress { address: self.shown.display().to_string(), fault }
    }
}

#[cfg(feature = "remote")]
impl Address {
    /// The address as given, with its secrets.
    pub(super) fn secret(&self) -> &str {
        &self.text
    }

    pub(super) fn is_s3(&self) -> bool {
        self.text.starts_with("s3://")
    }

    /// The address of what has another name in the same folder, with the same secrets.
    pub(super) fn beside(&self, name: &str) -> Self {
        let end = self.text.find(['?', '#']).unwrap_or(self.text.len());
        let start = self.text[..end].rfind('/').map_or(end, |slash| slash + 1);
        let text = format!("{}{name}{}", &self.text[..start], &self.text[end..]);
        Self { shown: without_secrets(&text).into(), text }
    }
}

/// Returns whether an item of a data specification is an address in a remote store, as in `https://host/x.tar`, and not a path.
#[must_use]
pub fn is_address(item: &str) -> bool {
    scheme(item).is_some()
}

/// The scheme of an address. That of one letter would be a drive of Windows.
fn scheme(item: &str) -> Option<&str> {
    let (scheme, _) = item.split_once("://")?;
    let is_scheme =
        scheme.len() > 1 && scheme.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    is_scheme.then_some(scheme)
}

/// Returns a data specification as it may be shown and recorded: its addresses without user names, passwords and queries,
/// which may hold signatures.
#[must_use]
pub fn without_secrets(spec: &str) -> String {
    if !spec.contains("://") {
        return spec.to_owned();
    }
    let items = super::spec::split(spec).unwrap_or_else(|_| vec![spec]);
    items.into_iter().map(item_without_secrets).collect::<Vec<_>>().join(",")
}

fn item_without_secrets(item: &str) -> String {
    let mut parts = item.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    let Some(rest) = item.get(shown.len()..).filter(|rest| !rest.is_empty()) else { return shown };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    for part in rest[..end].split("://").skip(1) {
        let authority = part.find(['/', '{', '}', ',']).unwrap_or(part.len());
        let host = part[..authority].rfind('@').map_or(0, |at| at + 1);
        shown += "://";
        shown += &part[host..];
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_shown(spec: &str, expected: &str) {
        assert_eq!(without_secrets(spec), expected);
    }

    #[test]
    fn secrets_are_not_shown() {
        check_shown("a/b?.tar,c@d", "a/b?.tar,c@d");
        check_shown("https://h:8080/a@b/x.tar", "https://h:8080/a@b/x.tar");
        check_shown("https://user:pass@h/x.tar?X-Signature=abc", "https://h/x.tar");
        check_shown("https://u:p@w@h/x.tar#part", "https://h/x.tar");
        check_shown("https://u:p@h", "https://h");
        check_shown(
            "s3://b/x-{0..1}.tar,https://u:p@h/{a,b}.tar?k=v,c?.png",
            "s3://b/x-{0..1}.tar,https://h/{a,b}.tar,c?.png",
        );
        check_shown("{https://u:p@h,http://u:p@i}/x.tar", "{https://h,http://i}/x.tar");
        check_shown("{https://u:p@h/x.tar", "{https://h/x.tar");
        check_shown("", "");
        let address = Address::of("https://u:p@h/x.tar?sig=abc").unwrap().unwrap();
        assert_eq!(format!("{address:?}"), "Address(https://h/x.tar)");
    }

    #[test]
    fn addresses_are_told_from_paths() {
        for path in ["a.tar", "C:/a.tar", "c://a.tar", "a/b://c", "x y://z", "://x", "../http:/x"] {
            assert!(!is_address(path), "{path}");
        }
        let error = Address::of("ftp://u:p@h/x.tar").unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot use the address `ftp://h/x.tar`: only `http://`, `https://` and `s3://` are read"
        );
        assert!(Address::of("s3://b/*.tar").unwrap().unwrap_err().to_string().contains("wildcard"));
        assert!(Address::of("https://h/x.tar?a=*").unwrap().is_ok());
    }

    #[cfg(feature = "remote")]
    #[test]
    fn what_lies_beside_has_the_same_secrets() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Address::of(text).unwrap().unwrap().beside("c.json").secret(), expected);
        };
        check("https://u:p@h/a/x.tar?k=v/w", "https://u:p@h/a/c.json?k=v/w");
        check("s3://b/x.tar", "s3://b/c.json");
    }
}
