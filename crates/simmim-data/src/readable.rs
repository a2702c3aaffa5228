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
    let mut of_classes = vec![Vec::new(); source.classes().len().min(MAX_CLASSES)];
    for index in 0..source.len() {
        for label in source.labels(index).into_iter().filter(|label| *label < MAX_CLASSES) {
            of_classes[label].push(index);
        }
    }
    for (name, of_class) in source.classes().iter().zip(of_classes) {
        if let Some((tried, first)) = first_failure(source, of_class.into_iter()) {
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
