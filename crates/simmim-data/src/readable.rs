//! Data that cannot work, found before the first step: nothing readable at all, or nothing of a class.

use crate::error::{Error, Result};
use crate::source::Source;

/// Classes beyond this many are not looked into: one image of each has to be decoded.
const MOST_CLASSES: usize = 1000;

/// Reads images of every class, or of an unlabelled source, until one can be read.
///
/// # Errors
///
/// [`Error::NoneReadable`] or [`Error::ClassUnreadable`] if none can be. A class without images is no error.
pub fn check_readable(source: &dyn Source) -> Result<()> {
    let all = || 0..source.len();
    if let Some((tried, first)) = first_failure(source, all()) {
        return Err(Error::NoneReadable { tried, first });
    }
    for (class, name) in source.classes().iter().enumerate().take(MOST_CLASSES) {
        let of_class = all().filter(|index| source.label(*index) == Some(class));
        if let Some((tried, first)) = first_failure(source, of_class) {
            return Err(Error::ClassUnreadable { class: name.clone(), tried, first });
        }
    }
    Ok(())
}

/// How many of `indices` there are and why the first cannot be read; none if one can be, or there are none.
fn first_failure(source: &dyn Source, indices: impl Iterator<Item = usize>) -> Option<(usize, String)> {
    let (mut tried, mut first) = (0, None);
    for index in indices {
        match source.get(index) {
            Ok(_) => return None,
            Err(error) => first = first.or_else(|| Some(error.to_string())),
        }
        tried += 1;
    }
    Some((tried, first?))
}
