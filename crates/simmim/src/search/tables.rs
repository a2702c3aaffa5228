//! Neighbors and places as files of comma-separated values.

use crate::error::Result;
use crate::run::files::replace;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

/// A file of comma-separated values that is written row by row.
pub struct Table(csv::Writer<BufWriter<File>>);

impl Table {
    /// Writes a file with these columns: whatever `fill` adds. If it returns `None` or fails, the file stays as it was.
    ///
    /// # Errors
    /// If the file cannot be written, or those of `fill`.
    pub fn write<T>(
        path: &Path,
        columns: &[&str],
        fill: impl FnOnce(&mut Table) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut filled = None;
        let written = replace(path, |partial| {
            let mut table = Table(csv::Writer::from_writer(BufWriter::new(File::create(partial)?)));
            table.add(columns)?;
            let result = fill(&mut table);
            let is_whole = matches!(result, Ok(Some(_)));
            filled = Some(result);
            // an error, so that nothing is replaced
            if is_whole { table.0.flush() } else { Err(io::ErrorKind::Interrupted.into()) }
        });
        match filled {
            Some(Ok(Some(result))) => written.map(|()| Some(result)).map_err(Into::into),
            Some(result) => result,
            None => written.map(|()| None).map_err(Into::into),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) -> io::Result<()> {
        Ok(self.0.write_record(cells.into_iter().map(|cell| cell.as_ref().to_owned()))?)
    }
}
