//! A small HTTP/1.1 server of files in memory. It delivers ranges, and can also do what servers should not.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the server answers.
#[allow(dead_code, reason = "two test programs have this file, and each needs some of the manners")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Well,
    /// Without ETag, or with a weak one.
    Untagged,
    WeaklyTagged,
    /// With a status and nothing else, so many times; then well.
    Status(u16, usize),
    /// With the whole file, whatever range is asked for.
    WithoutRanges,
    /// With half of what it announces.
    CutShort,
    /// With the head of an answer, and then silence.
    Silent,
}

pub(crate) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    files: Mutex<HashMap<String, Arc<Vec<u8>>>>,
    manner: Mutex<Manner>,
    /// What was asked for: the target, the range and the authorization.
    requests: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { files: Mutex::default(), manner: Mutex::new(Manner::Well), requests: Mutex::default() });
        let server = Self { shared: Arc::clone(&shared), address };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // a client that goes away is not an error
                thread::spawn(move || while shared.answer(&stream).is_some() {});
            }
        });
        server
    }

    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.shared.files.lock().unwrap().insert(format!("/{name}"), Arc::new(bytes));
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn address(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Takes the requests since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

impl Shared {
    /// Answers one request; `None` if the connection ends.
    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let target = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers: HashMap<String, String> = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
            .collect();
        let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
        let request = format!("{target} {} {}", header("range"), header("authorization"));
        self.requests.lock().unwrap().push(request.trim_end().to_owned());
        let manner = *self.manner.lock().unwrap();
        let path = target.split('?').next()?;
        let file = self.files.lock().unwrap().get(path).cloned();
        let (status, file) = match (manner, file) {
            (Manner::Status(status, times), _) => {
                *self.manner.lock().unwrap() = if times > 1 { Manner::Status(status, times - 1) } else { Manner::Well };
                (status, None)
            }
            (_, None) => (404, None),
            (_, Some(file)) => (200, Some(file)),
        };
        let Some(file) = file else {
            return write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").ok();
        };
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        let tag = match manner {
            Manner::Untagged => String::new(),
            Manner::WeaklyTagged => format!("W/\"{:x}\"", hasher.finish()),
            _ => format!("\"{:x}\"", hasher.finish()),
        };
        if ![String::new(), tag.clone()].contains(&header("if-match").to_owned()) {
            return write!(stream, "HTTP/1.1 412 Changed\r\ncontent-length: 0\r\n\r\n").ok();
        }
        let range = range(header("range"), file.len()).filter(|_| manner != Manner::WithoutRanges);
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let Range { start, end } = range.clone().unwrap_or(0..file.len());
        let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", end - start);
        if range.is_some() {
            head += &format!("content-range: bytes {start}-{}/{}\r\n", end - 1, file.len());
        }
        if !tag.is_empty() {
            head += &format!("etag: {tag}\r\n");
        }
        write!(stream, "{head}\r\n").ok()?;
        let end = match manner {
            Manner::CutShort => start + (end - start) / 2,
            Manner::Silent => {
                thread::sleep(Duration::from_secs(30));
                return None;
            }
            _ => end,
        };
        stream.write_all(&file[start..end]).ok()?;
        (manner != Manner::CutShort).then_some(())
    }
}

/// The range that a header asks for.
fn range(header: &str, len: usize) -> Option<Range<usize>> {
    let (start, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (start, last): (usize, usize) = (start.parse().ok()?, last.parse().ok()?);
    Some(start..(last + 1).min(len))
}
