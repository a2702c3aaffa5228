//! A check before the first step that a source, and each of its classes, has a readable image.

use crate::error::{Error, Result};
use crate::source::Source;

/// Classes after the first thousand are not checked: the check has to decode an image of each.
const MAX_CLASSES: usize = 1000;

/// Checks that at least one image of the source can be read.
///
/// # Errors
///
/// [`Error::NoneReadable`] if none can.
pub fn check_readable(source: &dyn Source) -> Result<()> {
    match first_failure(source, 0..source.len()) {
        Some((tried, first)) => Err(Error::NoneReadable { tried, first }),
        None => Ok(()),
    }
}

/// Checks that at least one image of each class can be read, where classes count.
///
/// # Errors
///
/// Those of [`check_readable`], and [`Error::ClassUnreadable`] if no image of a class can be read. A class without images is
/// not an error.
pub fn check_classes_readable(source: &dyn Source) -> Result<()> {
    check_readable(source)?;
    let all = || 0..source.len();
    for (class, name) in source.classes().iter().enumerate().take(MAX_CLASSES) {
        let of_class = all().filter(|index| source.labels(*index).contains(&class));
        if let Some((tried, first)) = first_failure(source, of_class) {
            return Err(Error::ClassUnreadable { class: name.clone(), tried, first });
        }
    }
    Ok(())
}

/// Returns the number of `indices` and why the first cannot be read; `None` if one can be read or there are none.
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
