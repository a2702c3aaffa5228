//! The arguments of `simmim inspect`.

use crate::paths;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// A run folder, a weights file, a recipe or a data set.
    #[arg(value_name = "RUN|FILE|RECIPE|DATA", value_parser = paths::data)]
    pub(crate) what: String,
    /// Channels to decode a data set to, by default 3.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) channels: Option<u16>,
    /// Reads a data set as this recipe does: in its channels and window, and cut into its tiles, which are drawn by --html.
    #[arg(long, value_name = "NAME|FILE", value_parser = paths::name, conflicts_with = "channels")]
    pub(crate) recipe: Option<String>,
    /// Writes a page about a data set: a contact sheet, histograms, duplicates side by side, what cannot be read.
    #[arg(long, value_name = "FILE.html", value_parser = paths::path())]
    pub(crate) html: Option<PathBuf>,
    /// Threads that read and decode a data set, by default one per core; they change no result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=1024))]
    pub(crate) workers: Option<u16>,
}
