//! What Hugging Face's libraries read from the environment, under the same names.

use simmim::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";

/// How long is waited for the next bytes.
const DOWNLOAD_TIMEOUT_S: u64 = 10;

/// What the environment says.
pub(super) struct Settings {
    /// Address of the hub, without a slash at its end.
    pub(super) endpoint: String,
    /// Folder of the cache.
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) is_offline: bool,
    /// A download ends if nothing is delivered for so long.
    pub(super) silence: Duration,
}

impl Settings {
    /// Reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and
    /// `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// If no cache folder is known, or a value is none.
    pub(super) fn of_environment() -> Result<Self, Error> {
        let home = match path("HF_HOME") {
            Some(home) => home,
            None => path("XDG_CACHE_HOME")
                .or_else(|| {
                    std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".cache"))
                })
                .map(|cache| cache.join("huggingface"))
                .ok_or_else(|| wrong("no home folder is known for the cache", "set HF_HOME to a folder"))?,
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return Err(wrong(
                &format!("`HF_ENDPOINT` is `{endpoint}`"),
                "it is an address such as https://huggingface.co",
            ));
        }
        let timeout = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => DOWNLOAD_TIMEOUT_S,
            Some(text) => text.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
                wrong(&format!("`HF_HUB_DOWNLOAD_TIMEOUT` is `{text}`"), "it is a whole number of seconds above 0")
            })?,
        };
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: text("HF_TOKEN").or_else(|| token_in(&path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")))),
            is_offline: text("HF_HUB_OFFLINE").is_some_and(|text| is_true(&text)),
            silence: Duration::from_secs(timeout),
        })
    }
}

/// A variable that is set and not empty.
fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn token_in(file: &Path) -> Option<String> {
    let token = std::fs::read_to_string(file).ok()?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn is_true(text: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&text.to_lowercase().as_str())
}

fn wrong(what: &str, hint: &str) -> Error {
    Error::Input { what: what.into(), hint: Some(hint.into()) }
}
