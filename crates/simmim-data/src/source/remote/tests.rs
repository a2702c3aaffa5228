//! Remote archives against a server in the test, which delivers as it should or in other ways.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::super::storage::testing::check_storage;
use super::*;
use crate::{Augmentation, Loader, LoaderConfig, Normalization, Transform};

#[path = "../../../tests/data/server.rs"]
mod server;

use server::{Manner, Server};

const SHORT: Patience = Patience { silence: Duration::from_millis(200), total: Duration::from_millis(600) };

fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| ((at * 7) >> 3) as u8).collect()
}

fn open(address: &str) -> Result<Arc<Remote>> {
    Remote::open_with(&Address::of(address).unwrap().unwrap(), SHORT, SHORT)
}

/// A server with `content` bytes, as an open archive.
fn opened(bytes: &[u8]) -> (Server, Arc<Remote>) {
    let server = Server::start();
    server.put("x.tar", bytes.to_vec());
    let remote = open(&server.address("x.tar")).unwrap();
    server.requests();
    (server, remote)
}

#[test]
fn ranges_have_the_bytes_of_the_object() {
    for manner in [Manner::Well, Manner::Untagged, Manner::WeaklyTagged] {
        let server = Server::start();
        server.behave(manner);
        let content = content(1_000_003);
        server.put("a%20b/x.tar", content.clone());
        check_storage(open(&server.address("a%20b/x.tar")).unwrap(), &content);
    }
}

#[track_caller]
fn check_fault(manner: Manner, at_opening: bool, message: &str, is_users: bool) {
    let server = Server::start();
    server.put("x.tar", content(1000));
    let address = server.address("x.tar?signature=secret").replace("http://", "http://user:secret@");
    let error = if at_opening {
        server.behave(manner);
        open(&address).err().unwrap()
    } else {
        let remote = open(&address).unwrap();
        server.behave(manner);
        failed(&remote.address, Fault::behind(&remote.read(10..20).unwrap_err()).unwrap().clone())
    };
    let told = format!("{error} {} {error:?}", error.hint().unwrap());
    assert!(told.starts_with(&format!("cannot read `{}`: ", server.address("x.tar"))), "{manner:?}: {told}");
    assert!(told.contains(message), "{manner:?}: {told}");
    assert!(!told.contains("secret") && !told.contains("user:"), "{manner:?}: {told}");
    assert_eq!(error.is_users_fault(), is_users, "{manner:?}");
}

#[test]
fn faults_of_servers_are_named_without_secrets() {
    for at_opening in [true, false] {
        let check = |manner, message, is_users| check_fault(manner, at_opening, message, is_users);
        check(Manner::Status(403, 9), "the store denies access (403)", true);
        check(Manner::Status(401, 9), "the store denies access (401)", true);
        check(Manner::Status(404, 9), "the store has nothing there (404)", true);
        check(Manner::Status(301, 9), "the store answers with status 301", true);
        check(Manner::Status(503, 99), "in 0 s: the store answers with status 503", false);
        check(Manner::WithoutRanges, "does not deliver parts of a file", true);
        check(Manner::Silent, "given up after", false);
    }
    check_fault(Manner::CutShort, false, "given up after", false);
}

#[test]
fn what_cannot_be_reached_is_named() {
    let error = open("http://127.0.0.1:9/x.tar").err().unwrap().to_string();
    assert!(error.contains("cannot read `http://127.0.0.1:9/x.tar`: given up after 2 tries"), "{error}");
    assert!(error.contains("refused"), "{error}");
    for (address, expected) in [
        ("s3:///x.tar", "it names no host"),
        ("https://h:port/x.tar", "it is not a URL"),
        ("s3://bucket//x.tar", "it names no object of a bucket"),
    ] {
        let error = open(address).err().unwrap().to_string();
        assert!(error.starts_with("cannot use the address `") && error.contains(expected), "{error}");
    }
    let server = Server::start();
    server.put("x.tar", Vec::new());
    server.behave(Manner::Status(416, 1));
    assert!(open(&server.address("x.tar")).err().unwrap().to_string().ends_with("it is empty"));
}

#[test]
fn a_silent_store_is_given_up_after_the_stated_time_and_then_at_once() {
    let (server, remote) = opened(&content(1000));
    server.behave(Manner::Silent);
    let start = Instant::now();
    let error = remote.read(0..100).unwrap_err();
    assert!((SHORT.silence..SHORT.total + SHORT.silence).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(error.to_string().contains("nothing was delivered for 0 s"), "{error}");
    let start = Instant::now();
    assert_eq!(remote.read(0..100).unwrap_err().to_string(), error.to_string());
    assert!(start.elapsed() < SHORT.silence, "{:?}", start.elapsed());
}

#[test]
fn what_passes_is_tried_again() {
    let (server, remote) = opened(&content(1000));
    server.behave(Manner::Status(503, 1));
    assert_eq!(remote.read(10..20).unwrap(), &content(1000)[10..20]);
    assert_eq!(server.requests(), ["/x.tar bytes=10-19", "/x.tar bytes=10-19"]);
}

#[test]
fn an_object_that_changes_is_an_error() {
    let check = |manner: Manner, now: Vec<u8>, expected: &str| {
        let server = Server::start();
        server.behave(manner);
        server.put("x.tar", content(1000));
        let remote = open(&server.address("x.tar")).unwrap();
        server.put("x.tar", now);
        let error = remote.read(10..20).unwrap_err().to_string();
        assert!(error.starts_with("it changed since it was opened: ") && error.contains(expected), "{error}");
    };
    let mut edited = content(1000);
    edited[500] ^= 1;
    check(Manner::Well, edited.clone(), "(412)");
    check(Manner::WeaklyTagged, edited, "its ETag was W/");
    check(Manner::Untagged, content(999), "it had 1000 bytes and has 999");
}

#[test]
fn headers_are_read_in_blocks_and_samples_by_one_request() {
    let bytes = content(9 << 20);
    let (server, remote) = opened(&bytes);
    for at in (0..9 << 20).step_by(32 << 10) {
        assert_eq!(remote.read_ahead(at..at + 512).unwrap(), &bytes[at as usize..at as usize + 512]);
    }
    // 1 + 2 + 4 + 8 + 16 blocks, and the rest
    assert_eq!(server.requests().len(), 6);
    assert_eq!(remote.read(5000..6000).unwrap(), &bytes[5000..6000]);
    assert_eq!(server.requests().len(), 0, "a sample in kept blocks");

    let (server, remote) = opened(&bytes);
    for start in [7 << 20, 100, 3 << 20] {
        assert_eq!(remote.read(start..start + 300_000).unwrap(), &bytes[start as usize..start as usize + 300_000]);
    }
    let expected = [7 << 20, 100, 3 << 20].map(|start| format!("/x.tar bytes={start}-{}", start + 299_999));
    assert_eq!(server.requests(), expected);
}

#[test]
fn samples_that_follow_each_other_share_requests() {
    let bytes = content(2 << 20);
    let (server, remote) = opened(&bytes);
    for start in (0..(2 << 20) - 10_000).step_by(10_000) {
        assert_eq!(remote.read(start..start + 9_000).unwrap(), &bytes[start as usize..start as usize + 9_000]);
    }
    assert!(server.requests().len() < 8);
}

#[test]
fn threads_that_want_the_same_block_fetch_it_once() {
    let bytes = content(100_000);
    let (server, remote) = opened(&bytes);
    let together = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (remote, together) = (Arc::clone(&remote), Arc::clone(&together));
            thread::spawn(move || {
                together.wait();
                remote.read_ahead(1000..2000).unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), &bytes[1000..2000]);
    }
    assert_eq!(server.requests(), ["/x.tar bytes=0-99999"]);
}

#[test]
fn secrets_of_an_address_reach_the_server() {
    let server = Server::start();
    server.put("x.tar", content(1000));
    server.put("c.json", b"[]".to_vec());
    // the user name is `us@r`, the password `p:w`
    let address = server.address("x.tar?sig=a%2Fb").replace("http://", "http://us%40r:p%3Aw@");
    let remote = open(&address).unwrap();
    assert_eq!(remote.beside("c.json").unwrap().unwrap(), b"[]");
    assert_eq!(remote.beside("d.json").unwrap(), None);
    let basic = "Basic dXNAcjpwOnc=";
    let expected = [format!("/x.tar?sig=a%2Fb bytes=0-0 {basic}"), format!("/c.json?sig=a%2Fb  {basic}")];
    assert_eq!(server.requests()[..2], expected);
}

#[test]
fn a_run_ends_with_the_error_of_a_store_that_was_given_up() {
    let mut archive = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    for number in 0..8 {
        archive.start_file(format!("{number}.png"), stored).unwrap();
        std::io::Write::write_all(&mut archive, &content(400_000)).unwrap();
    }
    let server = Server::start();
    server.put("x.zip", archive.finish().unwrap().into_inner());
    let zip = crate::source::Zip::of(open(&server.address("x.zip")).unwrap(), 3).unwrap();
    server.behave(Manner::Status(503, usize::MAX));
    let transform =
        Transform { height: 8, width: 8, augmentation: Augmentation::Center, normalization: Normalization::imagenet() };
    let config = LoaderConfig { batch_size: 2, rank: 0, world: 1, seed: 0, workers: 0, shuffle: false, prefetch: 1 };
    let start = Instant::now();
    let error = Loader::new(Arc::new(zip), transform, config, 0).unwrap().next().unwrap().unwrap_err();
    let expected = format!("cannot read `{}:0.png`: given up after", server.address("x.zip"));
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(!error.is_users_fault() && error.hint().unwrap().contains("the same command goes on"));
    assert!(start.elapsed() < 5 * SHORT.total, "{:?}", start.elapsed());
}

#[test]
fn memory_of_blocks_is_bounded() {
    let blocks = Blocks::default();
    let one = |number: u64| {
        let range = number * BLOCK..number * BLOCK + 10;
        let fetch = |range: Range<u64>| Ok(vec![(range.start / BLOCK) as u8; (range.end - range.start) as usize]);
        assert_eq!(blocks.read(1, range, 1 << 40, |_| 1, fetch).unwrap(), [number as u8; 10]);
    };
    (0..1000).for_each(one);
    let kept = (0..1000).filter(|number| blocks.kept(1, &(number * BLOCK..number * BLOCK + 1)).is_some());
    assert_eq!(kept.collect::<Vec<_>>(), (744..1000).collect::<Vec<_>>());
    assert!(blocks.kept(1, &(999 * BLOCK..1001 * BLOCK)).is_none());
    assert_eq!(blocks.kept(1, &(999 * BLOCK - 1..999 * BLOCK + 1)).unwrap(), [230, 231]);
}

#[test]
fn a_block_that_fails_fails_for_all_and_is_fetched_again() {
    let blocks = Blocks::default();
    let failing = |_| Err(Fault::Missing);
    assert_eq!(blocks.read(1, 0..10, 100, |_| 1, failing), Err(Fault::Missing));
    assert_eq!(blocks.read(1, 0..10, 100, |_| 1, |_| Ok(vec![7; 100])), Ok(vec![7; 10]));
}
