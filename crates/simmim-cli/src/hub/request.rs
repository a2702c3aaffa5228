//! Requests to a hub: what it says of a file, and the download of its content, repeated and resumed where that may help.

use super::address::{Address, is_commit, is_file_name};
use super::cache::Cache;
use super::settings::Settings;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest, Sha256};
use simmim::Error;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

/// Tries of a download, where what failed may pass.
const TRIES: u32 = 4;

/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Redirections that are followed.
const MOST_HOPS: usize = 8;

/// Whether a model must have a file.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Needed,
    IfThere,
}

/// Why a file was not fetched.
#[derive(Debug)]
pub(super) enum Fault {
    NoConnection(String),
    Silent {
        file: String,
        seconds: u64,
    },
    CutShort {
        file: String,
        got: u64,
        wanted: u64,
    },
    /// It is whole, and not what the hub says that it is.
    Damaged {
        file: String,
    },
    /// One must ask for access.
    Gated {
        message: String,
    },
    NoModel,
    NoRevision,
    NoFile {
        file: String,
    },
    NoWeights,
    Status {
        file: String,
        status: StatusCode,
        message: String,
    },
    /// What answers is no hub.
    NoHub {
        missing: &'static str,
    },
    Disk {
        path: PathBuf,
        error: io::Error,
    },
    Local(Error),
}

/// Asks a hub for the files of a model.
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Runtime,
    /// The address of the files of the revision, with a slash at its end: of the commit that a branch was at first, once that is
    /// known, so that all files are of one commit if the branch moves meanwhile.
    base: RefCell<Url>,
    authorization: Option<HeaderValue>,
    silence: Duration,
    is_quiet: bool,
}

/// A download that is not complete.
struct Partial {
    tag: String,
    path: PathBuf,
    len: u64,
}

/// What a hub says of a file, before its content comes.
struct Said {
    tag: String,
    commit: String,
    size: Option<u64>,
    response: Response,
}

impl Client {
    /// A client for a revision of a model.
    ///
    /// # Errors
    /// If the endpoint is no address, or no connection can be made at all.
    pub(super) fn new(settings: &Settings, address: &Address, is_quiet: bool) -> Result<Self, Error> {
        // it fails if there is one already, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unusable = |what: String| Error::Input { what: format!("no request can be made: {what}"), hint: None };
        let http = reqwest::Client::builder()
            .redirect(Policy::none()) // where they lead decides what is sent along
            .connect_timeout(settings.silence)
            .user_agent(concat!("simmim/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| unusable(said_by(&e)))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| unusable(e.to_string()))?;
        let (owner, name, revision) = (&address.owner, &address.name, address.revision.replace('/', "%2F"));
        let base = format!("{}/{owner}/{name}/resolve/{revision}/", settings.endpoint);
        let base = Url::parse(&base).map_err(|e| Error::Input {
            what: format!("`HF_ENDPOINT` is `{}`: {e}", settings.endpoint),
            hint: Some("it is an address such as https://huggingface.co".into()),
        })?;
        let authorization = settings.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Input {
                what: "the token has characters that no token has".into(),
                hint: Some("HF_TOKEN is the token alone, as the hub shows it".into()),
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        });
        let authorization = authorization.transpose()?;
        Ok(Self { http, runtime, base: RefCell::new(base), authorization, silence: settings.silence, is_quiet })
    }

    /// Fetches a file into the cache, if it is not there yet, and returns its path; `None` if the model does not have it
    /// and need not.
    ///
    /// # Errors
    /// If it cannot be fetched or written.
    pub(super) fn fetch(&self, cache: &Cache, file: &str, wanted: Wanted) -> Result<Option<PathBuf>, Fault> {
        let mut partial = None;
        let fetched = self.runtime.block_on(self.persistent(cache, file, &mut partial));
        if let Some(partial) = partial {
            let _ = fs::remove_file(partial.path); // of a download that was given up
        }
        match (fetched, wanted) {
            (Ok(path), _) => Ok(Some(path)),
            (Err(Fault::NoFile { .. }), Wanted::IfThere) => Ok(None),
            (Err(fault), _) => Err(fault),
        }
    }

    /// Tries until it succeeds or what fails will not pass.
    async fn persistent(&self, cache: &Cache, file: &str, partial: &mut Option<Partial>) -> Result<PathBuf, Fault> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            match self.once(cache, file, partial).await {
                // a connection that was lost on the way comes back; one that never was does not
                Err(fault) if tries < TRIES && (fault.may_pass() || partial.is_some() && fault.is_of_connection()) => {
                    sleep(pause).await;
                }
                result => return result,
            }
            (tries, pause) = (tries + 1, 2 * pause);
        }
    }

    async fn once(&self, cache: &Cache, file: &str, partial: &mut Option<Partial>) -> Result<PathBuf, Fault> {
        let Said { tag, commit, size, mut response } = self.ask(cache, file, partial.as_ref()).await?;
        let blob = cache.blob(&tag);
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |error| Fault::Disk { path, error }
        };
        if !blob.is_file() {
            let is_rest = response.status() == StatusCode::PARTIAL_CONTENT;
            let begun = match partial.take() {
                Some(begun) if begun.tag == tag && is_rest => Some(begun),
                Some(other) => {
                    let _ = fs::remove_file(other.path);
                    None
                }
                None => None,
            };
            if begun.is_none() && is_rest {
                // the rest of another content than that which was begun: the next try asks for the whole of it
                return Err(Fault::CutShort { file: file.into(), got: 0, wanted: size.unwrap_or(1) });
            }
            let path = begun.as_ref().map_or_else(|| blob.with_file_name(unfinished(&tag)), |begun| begun.path.clone());
            let len = begun.map_or(0, |begun| begun.len);
            if let Some(folder) = blob.parent() {
                fs::create_dir_all(folder).map_err(disk(folder))?;
            }
            let mut out = match len {
                0 => File::create(&path),
                _ => File::options().append(true).open(&path),
            }
            .map_err(disk(&path))?;
            let partial = partial.insert(Partial { tag: tag.clone(), path: path.clone(), len });
            if len == 0 && !self.is_quiet {
                let size = size.map_or(String::new(), |size| format!(", {:.1} MB", size as f64 / 1e6));
                crate::terminal::line(&format!("fetching {file}{size}"));
            }
            let cut_short = |got: u64| Fault::CutShort { file: file.into(), got, wanted: size.unwrap_or(got + 1) };
            loop {
                let part = timeout(self.silence, response.chunk()).await.map_err(|_| self.silent(file))?;
                let Some(bytes) = part.map_err(|_| cut_short(partial.len))? else { break };
                out.write_all(&bytes).map_err(disk(&path))?;
                partial.len += bytes.len() as u64;
            }
            out.sync_all().map_err(disk(&path))?;
            if size.is_some_and(|size| size != partial.len) {
                return Err(cut_short(partial.len));
            }
            if !is_content_of(&path, &tag).map_err(disk(&path))? {
                partial.len = 0; // none of it is used again
                return Err(Fault::Damaged { file: file.into() });
            }
            fs::rename(&path, &blob).map_err(disk(&blob))?;
        }
        *partial = None;
        cache.name(&tag, &commit, file).map_err(disk(&blob))
    }

    /// Asks for a file, and follows redirections to where its content is.
    async fn ask(&self, cache: &Cache, file: &str, partial: Option<&Partial>) -> Result<Said, Fault> {
        let base = self.base.borrow().clone();
        let mut url = base.join(file).map_err(|e| Fault::NoConnection(e.to_string()))?;
        let (mut tag, mut commit, mut size) = (None, None, None);
        for _ in 0..MOST_HOPS {
            let response = self.send(&url, file, partial).await?;
            let headers = response.headers();
            // the first answer is that of the hub itself
            tag = tag.or_else(|| header(headers, "x-linked-etag").map(tag_of));
            commit = commit.or_else(|| header(headers, "x-repo-commit").map(str::to_owned));
            let is_of_hub = url.origin() == base.origin();
            if let Some(commit) = commit.as_ref().filter(|commit| is_of_hub && is_commit(commit))
                && let Ok(pinned) = base.join(&format!("../{commit}/"))
            {
                self.base.replace(pinned);
            }
            size = size.or_else(|| header(headers, "x-linked-size")?.parse().ok());
            if let (Some(tag), Some(commit)) = (&tag, &commit)
                && is_file_name(tag)
                && is_commit(commit)
                && cache.blob(tag).is_file()
            {
                return Ok(Said { tag: tag.clone(), commit: commit.clone(), size, response }); // its content is not needed
            }
            if response.status().is_redirection() {
                let to = header(headers, LOCATION.as_str()).and_then(|to| url.join(to).ok());
                url = to.ok_or(Fault::NoHub { missing: "location" })?;
                continue;
            }
            if !response.status().is_success() {
                return Err(self.refused(file, &response));
            }
            let begun = partial.filter(|_| response.status() == StatusCode::PARTIAL_CONTENT).map_or(0, |p| p.len);
            let length = header(headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
            let tag = tag.or_else(|| header(headers, ETAG.as_str()).map(tag_of));
            return Ok(Said {
                tag: tag.filter(|tag| is_file_name(tag)).ok_or(Fault::NoHub { missing: "etag" })?,
                commit: commit.filter(|commit| is_commit(commit)).ok_or(Fault::NoHub { missing: "x-repo-commit" })?,
                size: size.or(length.map(|length| begun + length)),
                response,
            });
        }
        Err(Fault::NoConnection(format!("{base} leads from one address to the next")))
    }

    async fn send(&self, url: &Url, file: &str, partial: Option<&Partial>) -> Result<Response, Fault> {
        let mut request = self.http.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        // a token is for the hub alone, not for the stores that it leads to
        if let Some(token) = self.authorization.as_ref().filter(|_| url.origin() == self.base.borrow().origin()) {
            request = request.header(AUTHORIZATION, token.clone());
        }
        if let Some(partial) = partial.filter(|partial| partial.len > 0) {
            request = request.header(RANGE, format!("bytes={}-", partial.len));
        }
        let sent = timeout(self.silence, request.send()).await.map_err(|_| self.silent(file))?;
        let host = url.host_str().unwrap_or_default();
        sent.map_err(|e| Fault::NoConnection(format!("`{host}` cannot be reached: {}", said_by(&e))))
    }

    fn silent(&self, file: &str) -> Fault {
        Fault::Silent { file: file.to_owned(), seconds: self.silence.as_secs() }
    }

    /// Why a hub does not deliver, by what its headers say.
    fn refused(&self, file: &str, response: &Response) -> Fault {
        let (headers, status) = (response.headers(), response.status());
        let message = header(headers, "x-error-message").unwrap_or_default().to_owned();
        match (status.as_u16(), header(headers, "x-error-code")) {
            (_, Some("GatedRepo")) | (403, _) => Fault::Gated { message },
            (_, Some("RevisionNotFound")) => Fault::NoRevision,
            (_, Some("RepoNotFound")) | (401, _) => Fault::NoModel,
            (404, _) => Fault::NoFile { file: file.to_owned() },
            (_, _) => Fault::Status { file: file.to_owned(), status, message },
        }
    }
}

/// A name for what is being fetched, which no other process has.
fn unfinished(tag: &str) -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("{tag}.{}-{time}.incomplete", std::process::id())
}

/// Whether a file is what its tag says; the tags of large files are their SHA-256, and others say nothing.
fn is_content_of(path: &Path, tag: &str) -> io::Result<bool> {
    if tag.len() != 64 || !tag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(true);
    }
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hash == tag.to_ascii_lowercase())
}

impl Fault {
    fn is_of_connection(&self) -> bool {
        matches!(self, Fault::NoConnection(_))
    }

    /// Whether another try may succeed.
    fn may_pass(&self) -> bool {
        match self {
            Fault::Silent { .. } | Fault::CutShort { .. } | Fault::Damaged { .. } => true,
            Fault::Status { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Fault::NoConnection(_)
            | Fault::Gated { .. }
            | Fault::NoModel
            | Fault::NoRevision
            | Fault::NoFile { .. }
            | Fault::NoWeights
            | Fault::NoHub { .. }
            | Fault::Disk { .. }
            | Fault::Local(_) => false,
        }
    }

    /// The error, with what can be done.
    pub(super) fn error(self, address: &Address, settings: &Settings) -> Error {
        let (text, endpoint) = (&address.text, &settings.endpoint);
        let page = format!("{endpoint}/{}/{}", address.owner, address.name);
        let has_token = settings.token.is_some();
        let again = "the same command tries again";
        let (what, hint) = match self {
            Fault::NoConnection(what) => {
                (what, "is there a network? HF_HUB_OFFLINE=1 takes what is in the cache".into())
            }
            Fault::Silent { file, seconds } => {
                let hint = format!("{again}; HF_HUB_DOWNLOAD_TIMEOUT is the number of seconds that are waited");
                (format!("`{text}`: nothing came of `{file}` for {seconds} s, in {TRIES} tries"), hint)
            }
            Fault::CutShort { file, got, wanted } => {
                let what = format!("`{text}`: `{file}` ended after {got} of {wanted} bytes, in {TRIES} tries");
                (what, again.into())
            }
            Fault::Damaged { file } => {
                let what =
                    format!("`{text}`: what came of `{file}` has another SHA-256 than the hub says, in {TRIES} tries");
                (what, again.into())
            }
            Fault::Gated { message } if has_token => {
                let what = format!("`{text}` is only for those who were given access, and the token's account was not");
                (with(what, &message), format!("accept its terms at {page} with the account of the token"))
            }
            Fault::Gated { message } => {
                let hint = format!("accept its terms at {page}, and set HF_TOKEN to a token of that account");
                (with(format!("`{text}` is only for those who were given access"), &message), hint)
            }
            Fault::NoModel if has_token => {
                let hint = format!("is {page} there, and may the token's account read it?");
                (format!("`{text}`: the hub has no such model, or does not show it to the token's account"), hint)
            }
            Fault::NoModel => {
                let hint = format!("is {page} there? For what is not public, set HF_TOKEN to a token that may read it");
                (format!("`{text}`: the hub has no such model, or does not show it without a token"), hint)
            }
            Fault::NoRevision => {
                let what = format!("`{text}`: the model has no branch, tag or commit `{}`", address.revision);
                (what, format!("{page}/tree/main lists them"))
            }
            Fault::NoFile { file } => (
                format!("`{text}`: the model has no file `{file}`"),
                format!("{page}/tree/{} lists them", address.revision),
            ),
            Fault::NoWeights => {
                let what =
                    format!("`{text}` has no weights under the usual names ({})", super::fetch::WEIGHTS.join(", "));
                (what, format!("name a file of {page}/tree/{}, as in hf://OWNER/NAME/FILE", address.revision))
            }
            Fault::Status { file, status, message } => {
                (with(format!("`{text}`: the hub answers {status} for `{file}`"), &message), again.into())
            }
            Fault::NoHub { missing } => {
                let what = format!("`{endpoint}` answers without the header `{missing}`, so it is no hub of models");
                (what, "HF_ENDPOINT is the address of a hub, such as https://huggingface.co".into())
            }
            Fault::Disk { path, error } => {
                let hint = "HF_HOME or HF_HUB_CACHE names a folder for the cache";
                (format!("`{}` cannot be written: {error}", path.display()), hint.into())
            }
            Fault::Local(error) => return error,
        };
        Error::Input { what, hint: Some(hint) }
    }
}

/// A sentence, and what the hub says to it.
fn with(what: String, message: &str) -> String {
    if message.is_empty() { what } else { format!("{what}: {message}") }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The tag without quotes and the mark of a weak one.
fn tag_of(header: &str) -> String {
    header.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// The innermost reason, without the address, which may hold what is signed.
fn said_by(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
