//! Weights at `hf://`, from a server on this machine that answers as the hub does.

use super::support::{json, refuses, repository, run, scratch, simmim, succeeds};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A request: its path, and its headers with small letters.
#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
}

/// What is sent back.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Only so many bytes of the body are sent; then the connection ends, or is silent.
    sent: Option<usize>,
    is_silent: bool,
}

impl Reply {
    fn new(status: u16, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { status, headers, body: Vec::new(), sent: None, is_silent: false }
    }

    /// A file as the hub sends it.
    fn file(commit: &str, body: Vec<u8>) -> Self {
        let tag = format!("\"{:016x}\"", body.iter().fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(*b as u64)));
        Self { body, ..Self::new(200, &[("X-Repo-Commit", commit), ("ETag", &tag)]) }
    }

    /// A refusal as the hub sends it.
    fn refused(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, &[("X-Error-Code", code), ("X-Error-Message", message)])
    }
}

/// A server on a port of its own, until the tests end.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || drop(serve(&stream.unwrap(), &seen, &*answer)));
            }
        });
        Self { address, requests }
    }

    fn seen(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Answers one request and closes the connection.
fn serve(
    mut stream: &TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap()?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = Request { path, headers };
    seen.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut head =
        format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body[..reply.sent.unwrap_or(reply.body.len())])?;
    stream.flush()?;
    if reply.is_silent {
        std::thread::sleep(Duration::from_secs(30));
    }
    Ok(())
}

fn fixture(file: &str) -> Option<Vec<u8>> {
    fs::read(Path::new(&repository("testdata/weights")).join(file)).ok()
}

/// A command whose hub is at `address`, with a cache of its own.
fn on(address: &str, home: &Path, arguments: &[&str]) -> Command {
    let mut command = simmim(arguments);
    command.env("HF_ENDPOINT", address).env("HF_HOME", home).env("NO_PROXY", "127.0.0.1");
    for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    command
}

/// The file of a model that is asked for at a branch, or at the commit that the branch is at.
fn of_model<'a>(path: &'a str, model: &str, branch: &str, commit: &str) -> Option<&'a str> {
    [branch, commit].iter().find_map(|revision| path.strip_prefix(&format!("/{model}/resolve/{revision}/")))
}

#[test]
fn all_files_are_of_the_commit_that_the_branch_was_at_first() {
    let (folder, out) = scratch();
    let asked_of_branch = Mutex::new(0);
    // the branch moves to another model after its first answer
    let hub = Server::new(move |request| {
        let reply = |commit, model: &str, file: &str| {
            fixture(&format!("{model}/{file}"))
                .map_or(Reply::refused(404, "EntryNotFound", ""), |body| Reply::file(commit, body))
        };
        if let Some(file) = request.path.strip_prefix(&format!("/own/vit/resolve/{COMMIT}/")) {
            return reply(COMMIT, "hf-vit", file);
        }
        let Some(file) = request.path.strip_prefix("/own/vit/resolve/main/") else { return Reply::new(404, &[]) };
        let mut asked = asked_of_branch.lock().unwrap();
        *asked += 1;
        if *asked == 1 { reply(COMMIT, "hf-vit", file) } else { reply(OTHER_COMMIT, "hf-dinov2", file) }
    });
    let home = folder.path().join("home");
    let mut command = on(&hub.address, &home, &["import", "hf://own/vit", "--out"]);
    command.arg(&out);
    assert_eq!(json(command)["convention"], "Hugging Face ViT");
    let model = home.join("hub/models--own--vit");
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    assert!(!model.join("snapshots").join(OTHER_COMMIT).exists());
    let paths: Vec<String> = hub.seen().into_iter().map(|request| request.path).collect();
    assert!(paths[1..].iter().all(|path| path.contains(COMMIT)), "{paths:?}");
}

#[test]
fn of_processes_that_begin_together_one_fetches_and_the_others_wait() {
    let (folder, _) = scratch();
    let store = Server::new(|_| {
        std::thread::sleep(Duration::from_secs(3)); // so long that the others have begun
        Reply { body: fixture("hf-vit/model.safetensors").unwrap(), ..Reply::new(200, &[("ETag", "x")]) }
    });
    let signed = format!("{}/signed", store.address);
    let hub = Server::new(move |request| match of_model(&request.path, "own/vit", "main", COMMIT) {
        Some("config.json") => Reply::file(COMMIT, fixture("hf-vit/config.json").unwrap()),
        Some("model.safetensors") => {
            let headers = [("Location", signed.as_str()), ("X-Linked-Etag", "\"weights\""), ("X-Repo-Commit", COMMIT)];
            Reply::new(302, &headers)
        }
        _ => Reply::refused(404, "EntryNotFound", ""),
    });
    let home = folder.path().join("home");
    let begin = |rank: usize| {
        let mut command = on(&hub.address, &home, &["import", "hf://own/vit", "--out"]);
        command.arg(folder.path().join(format!("{rank}.safetensors"))).env("HF_HUB_DOWNLOAD_TIMEOUT", "30");
        std::thread::spawn(move || run(command))
    };
    let begun: Vec<_> = (0..3).map(begin).collect();
    let ran: Vec<_> = begun.into_iter().map(|ran| ran.join().unwrap()).collect();
    assert!(ran.iter().all(|ran| ran.code == Some(0)), "{ran:?}");
    assert_eq!(store.seen().len(), 1, "one fetches");
}

#[test]
fn a_model_is_fetched_once_and_its_token_goes_to_the_hub_alone() {
    let (folder, out) = scratch();
    let store = Server::new(|request| match request.path.as_str() {
        "/signed?key=1" => {
            Reply { body: fixture("hf-vit/model.safetensors").unwrap(), ..Reply::new(200, &[("ETag", "x")]) }
        }
        _ => Reply::new(404, &[]),
    });
    let signed = format!("{}/signed?key=1", store.address);
    let hub = Server::new(move |request| match of_model(&request.path, "own/vit", "main", COMMIT) {
        Some("config.json") => Reply::file(COMMIT, fixture("hf-vit/config.json").unwrap()),
        Some("model.safetensors") => {
            let headers = [("Location", signed.as_str()), ("X-Linked-Etag", "\"weights\""), ("X-Repo-Commit", COMMIT)];
            Reply::new(302, &headers)
        }
        Some(_) => Reply::refused(404, "EntryNotFound", "Entry not found"),
        None if request.path.starts_with("/former/vit/") => {
            Reply::new(307, &[("Location", &request.path.replace("/former/", "/own/"))])
        }
        None => Reply::refused(401, "RepoNotFound", "Repository not found"),
    });
    let home = folder.path().join("home");
    let import = |address: &str| {
        let mut command = on(&hub.address, &home, &["import", address, "--out"]);
        command.arg(&out).env("HF_TOKEN", "hf_secret");
        command
    };
    let result = json(import("hf://own/vit"));
    assert_eq!(result["convention"], "Hugging Face ViT");
    let token = |request: &Request| request.headers.get("authorization").cloned();
    let (asked, stored) = (hub.seen(), store.seen());
    assert!(asked.iter().all(|request| token(request).as_deref() == Some("Bearer hf_secret")), "{asked:?}");
    assert!(stored.len() == 1 && token(&stored[0]).is_none(), "{stored:?}");
    // so that a cache which has weights has what says how they are read
    let place = |file: &str| asked.iter().position(|request| request.path.ends_with(file)).unwrap();
    assert!(place("config.json") < place("model.safetensors"), "{asked:?}");

    // the cache is that of the other libraries
    let model = home.join("hub/models--own--vit");
    assert_eq!(fs::read_to_string(model.join("refs/main")).unwrap(), COMMIT);
    let weights = model.join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(fs::read(&weights).unwrap(), fixture("hf-vit/model.safetensors").unwrap());
    if cfg!(unix) {
        assert_eq!(fs::read_link(&weights).unwrap(), Path::new("../../blobs/weights"));
    }
    assert_eq!(fs::read_dir(model.join("blobs")).unwrap().count(), 2, "nothing is left half fetched");

    // a branch is asked about again, and what has not changed is not fetched again
    succeeds(import("hf://own/vit"));
    assert!(hub.seen().len() == 3 && store.seen().is_empty(), "config, preprocessor and weights");
    // a commit does not change; and offline nothing is asked
    succeeds(import(&format!("hf://own/vit@{COMMIT}")));
    let mut offline = import("hf://own/vit/model.safetensors");
    offline.env("HF_HUB_OFFLINE", "1");
    succeeds(offline);
    assert!(hub.seen().is_empty());
    // a model that moved
    succeeds(import("hf://former/vit"));

    let features = folder.path().join("features.npy");
    let photos = super::support::photos();
    let mut embed = on(&hub.address, &home, &["embed", "--from=hf://own/vit", "--data", &photos, "--out"]);
    embed.arg(&features);
    assert_eq!(json(embed)["shape"][0], 16);
}

#[test]
fn shards_revisions_and_files_in_folders_are_fetched() {
    let (folder, out) = scratch();
    let hub = Server::new(|request| {
        let of_branch = of_model(&request.path, "own/vit", "refs%2Fpr%2F1", OTHER_COMMIT);
        let file = match of_branch.and_then(|file| file.strip_prefix("inner/")) {
            Some(file) => fixture(&format!("hf-vit/{file}")),
            None => of_branch.and_then(|file| fixture(&format!("hf-vit-sharded/{file}"))),
        };
        file.map_or(Reply::refused(404, "EntryNotFound", ""), |file| Reply::file(OTHER_COMMIT, file))
    });
    for (address, convention) in [
        ("hf://own/vit@refs%2Fpr%2F1", "Hugging Face ViT"),
        ("hf://own/vit@refs%2Fpr%2F1/model.safetensors.index.json", "Hugging Face ViT"),
        ("hf://own/vit@refs%2Fpr%2F1/inner/model.safetensors", "Hugging Face ViT"),
    ] {
        let mut command = on(&hub.address, &folder.path().join("home"), &["import", address, "--out"]);
        command.arg(&out);
        assert_eq!(json(command)["convention"], convention, "{address}");
    }
    let reference = folder.path().join("home/hub/models--own--vit/refs/refs/pr/1");
    assert_eq!(fs::read_to_string(reference).unwrap(), OTHER_COMMIT);
}

#[test]
fn what_the_hub_refuses_is_said_with_what_to_do() {
    let (folder, out) = scratch();
    let hub = Server::new(|request| {
        let is_named = request.headers.contains_key("authorization");
        match request.path.split('/').nth(2).unwrap_or_default() {
            "gated" if is_named => Reply::refused(403, "GatedRepo", "Your request is awaiting a review"),
            "gated" => Reply::refused(401, "GatedRepo", "Access to model own/gated is restricted"),
            "old" => Reply::refused(404, "RevisionNotFound", "Invalid rev id"),
            "empty" => Reply::refused(404, "EntryNotFound", "Entry not found"),
            "busy" => Reply::new(503, &[]),
            "strange" => Reply { body: b"<html>".to_vec(), ..Reply::new(200, &[]) },
            _ => Reply::refused(401, "RepoNotFound", "Repository Not Found"),
        }
    });
    let page = |name: &str| format!("{}/own/{name}", hub.address);
    for (address, token, error, hint) in [
        ("hf://own/gated", None, "given access: Access to model own/gated is restricted", "set HF_TOKEN"),
        ("hf://own/gated", None, "given access", &format!("accept its terms at {}", page("gated"))),
        ("hf://own/gated", Some("t"), "account was not: Your request is awaiting", "with the account of the token"),
        ("hf://own/none", None, "no such model, or does not show it without a token", "HF_TOKEN"),
        ("hf://own/none", Some("t"), "does not show it to the token's account", &page("none")),
        ("hf://own/old@v7", None, "no branch, tag or commit `v7`", "lists them"),
        ("hf://own/empty", None, "no weights under the usual names", "hf://OWNER/NAME/FILE"),
        ("hf://own/empty/a.pth", None, "has no file `a.pth`", "lists them"),
        ("hf://own/busy", None, "answers 503", "tries again"),
        ("hf://own/strange", None, "is no hub of models", "HF_ENDPOINT"),
        ("hf://own", None, "a model has an owner and a name", "hf://OWNER/NAME"),
        ("hf://own/../x", None, "names have letters", "hf://OWNER/NAME"),
    ] {
        let mut command = on(&hub.address, &folder.path().join("home"), &["import", address, "--out"]);
        command.arg(&out);
        token.map(|token| command.env("HF_TOKEN", token));
        refuses(command, error, hint);
    }
    // no network, and none wanted
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let import = |endpoint: &str| {
        let mut command = on(endpoint, &folder.path().join("home"), &["import", "hf://own/vit", "--out"]);
        command.arg(&out);
        command
    };
    let ran = refuses(import(&format!("http://{gone}")), "`127.0.0.1` cannot be reached", "where there is a network");
    assert!(ran.stderr.contains("is not in the cache"), "{}", ran.stderr);
    let mut offline = import(&hub.address);
    offline.env("HF_HUB_OFFLINE", "true");
    refuses(offline, "`HF_HUB_OFFLINE` is set", "");
    refuses(import("ftp://x"), "`HF_ENDPOINT` is `ftp://x`", "https://huggingface.co");
    assert!(!out.exists());
}

#[test]
fn a_download_that_ends_early_goes_on_where_it_was_and_one_that_stalls_is_given_up() {
    let (folder, out) = scratch();
    let hub = Server::new(|request| {
        let name = request.path.split('/').nth(2).unwrap_or_default();
        match request.path.rsplit('/').next().unwrap_or_default() {
            "config.json" => Reply::file(COMMIT, fixture("hf-vit/config.json").unwrap()),
            "model.safetensors" => {
                let body = fixture("hf-vit/model.safetensors").unwrap();
                let whole = Reply::file(COMMIT, body.clone());
                let range =
                    request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
                match (name, range) {
                    ("broken", Some(from)) => {
                        let body = body[from.parse::<usize>().unwrap()..].to_vec();
                        Reply { status: 206, body, ..whole }
                    }
                    ("broken" | "short", _) => Reply { sent: Some(1000), ..whole },
                    ("silent", _) => Reply { sent: Some(1000), is_silent: true, ..whole },
                    _ => whole,
                }
            }
            _ => Reply::refused(404, "EntryNotFound", ""),
        }
    });
    let home = folder.path().join("home");
    let import = |name: &str| {
        let mut command = on(&hub.address, &home, &["import", &format!("hf://own/{name}"), "--out"]);
        command.arg(&out);
        command
    };
    succeeds(import("broken"));
    let weights = home.join("hub/models--own--broken/snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(fs::read(weights).unwrap(), fixture("hf-vit/model.safetensors").unwrap());
    let ranges: Vec<String> = hub.seen().into_iter().filter_map(|mut r| r.headers.remove("range")).collect();
    assert_eq!(ranges, ["bytes=1000-"]);

    refuses(import("short"), "`model.safetensors` ended after 1000 of", "tries again");
    refuses(import("silent"), "nothing came of `model.safetensors` for 1 s", "HF_HUB_DOWNLOAD_TIMEOUT");
    for name in ["short", "silent"] {
        let blobs = home.join(format!("hub/models--own--{name}/blobs"));
        let mut left = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!left.any(|name| name.contains("incomplete")), "nothing is left half fetched");
    }
    // without the network, what was fetched is used, and that is said
    let mut command = import("broken");
    command.env("HF_ENDPOINT", format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()));
    let ran = run(command);
    assert!(ran.code == Some(0) && ran.stderr.contains("from the cache"), "{ran:?}");
}

/// SHA-256 of `testdata/weights/hf-vit/model.safetensors`, by `sha256sum`.
const SHA_256: &str = "4171522d2c09f34fbdd169c46e9649334c28e596f440067e28a25500160f9449";

#[test]
fn what_comes_is_compared_with_its_sha_256() {
    let (folder, out) = scratch();
    let hub = Server::new(|request| match request.path.rsplit('/').next().unwrap_or_default() {
        "config.json" => Reply::file(COMMIT, fixture("hf-vit/config.json").unwrap()),
        "model.safetensors" => {
            let mut body = fixture("hf-vit/model.safetensors").unwrap();
            if request.path.contains("damaged") {
                *body.last_mut().unwrap() ^= 1;
            }
            Reply { body, ..Reply::new(200, &[("X-Repo-Commit", COMMIT), ("X-Linked-Etag", SHA_256)]) }
        }
        _ => Reply::refused(404, "EntryNotFound", ""),
    });
    let home = folder.path().join("home");
    let import = |name: &str| {
        let mut command = on(&hub.address, &home, &["import", &format!("hf://own/{name}"), "--out"]);
        command.arg(&out);
        command
    };
    succeeds(import("whole"));
    refuses(import("damaged"), "another SHA-256", "tries again");
    assert!(!home.join("hub/models--own--damaged/blobs").join(SHA_256).exists());
}

#[test]
fn a_file_that_changes_between_two_tries_is_fetched_anew() {
    let (folder, out) = scratch();
    let tries = Mutex::new(0);
    let hub = Server::new(move |request| match request.path.rsplit('/').next().unwrap_or_default() {
        "config.json" => Reply::file(COMMIT, fixture("hf-vit/config.json").unwrap()),
        "model.safetensors" => {
            let body = fixture("hf-vit/model.safetensors").unwrap();
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            match (*tries, request.headers.contains_key("range")) {
                // 1,000 bytes of another file, and then the rest of this one
                (1, _) => Reply { sent: Some(1000), ..Reply::file(COMMIT, vec![7; body.len()]) },
                (_, true) => {
                    let whole = Reply::file(COMMIT, body.clone());
                    Reply { status: 206, body: body[1000..].to_vec(), ..whole }
                }
                (_, false) => Reply::file(COMMIT, body),
            }
        }
        _ => Reply::refused(404, "EntryNotFound", ""),
    });
    let home = folder.path().join("home");
    let mut command = on(&hub.address, &home, &["import", "hf://own/vit", "--out"]);
    command.arg(&out);
    succeeds(command);
    let weights = home.join("hub/models--own--vit/snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(fs::read(weights).unwrap(), fixture("hf-vit/model.safetensors").unwrap());
    let blobs: Vec<_> = fs::read_dir(home.join("hub/models--own--vit/blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 2, "{blobs:?}");
}
