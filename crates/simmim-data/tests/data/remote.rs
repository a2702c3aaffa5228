//! Addresses in data specifications, and what is said of them.

use simmim_data::{is_address, open, without_secrets};

#[track_caller]
fn check_refused(spec: &str, expected: &str) {
    let error = open(spec, 3).err().expect("the address is wrong");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.is_users_fault() && error.hint().is_some(), "{error}");
}

#[test]
fn addresses_that_cannot_be_used_say_why() {
    check_refused("ftp://host/x.tar", "cannot use the address `ftp://host/x.tar`: only `http://`");
    check_refused("http://u:p@host/x-*.tar", "cannot use the address `http://host/x-*.tar`: a store is not searched");
    check_refused("http://host/folder/", "`http://host/folder/`: its name is not that of an archive");
    check_refused("http://host/x.png?sig=1", "`http://host/x.png`: its name is not that of an archive");
    check_refused("http://u:p@host/{a", "`http://host/{a` is not a list of paths");
}

#[test]
fn addresses_are_recognized_and_shown_without_secrets() {
    assert!(is_address("s3://bucket/x.tar") && !is_address("data/x.tar"));
    assert_eq!(without_secrets("a.tar,https://u:p@h/{0..3}.tar?sig=1"), "a.tar,https://h/{0..3}.tar");
}

#[cfg(not(feature = "remote"))]
#[test]
fn a_build_without_stores_says_so() {
    check_refused("https://u:p@host/x.tar", "`https://host/x.tar` is of a kind that this build does not read");
    assert!(open("https://host/x.tar", 3).err().unwrap().hint().unwrap().contains("the feature `remote`"));
}

#[cfg(feature = "remote")]
mod with_stores {
    use simmim_data::{Source, open, scan};
    use tempfile::tempdir;

    use crate::files::{gray, tar, write, zip};
    use crate::server::{Manner, Server};
    use crate::sources::value;

    fn values(source: &dyn Source) -> Vec<u8> {
        (0..source.len()).map(|index| value(source, index)).collect()
    }

    #[test]
    fn lists_of_addresses_and_paths_are_opened_in_their_order() {
        let (server, folder) = (Server::start(), tempdir().unwrap());
        for number in 0..3 {
            server.put(&format!("s-{number:02}.tar"), tar(&[("a.png", &gray(number))]));
        }
        server.put("z.zip", zip(&[("a.png", &gray(9))], ::zip::CompressionMethod::Stored));
        let local = folder.path().join("l.tar");
        write(&local, &tar(&[("a.png", &gray(5))]));
        let spec =
            format!("{},{},{}", server.address("s-{00..02}.tar"), local.display(), server.address("z.zip?key=1"));
        let source = open(&spec, 3).unwrap();
        assert_eq!(values(&*source), [0, 1, 2, 5, 9]);
        assert_eq!(source.name(1), format!("{}:a.png", server.address("s-01.tar")));
        assert_eq!(source.name(4), format!("{}:a.png", server.address("z.zip")));
    }

    #[test]
    fn a_sample_that_a_store_does_not_deliver_is_unreadable() {
        let server = Server::start();
        // larger than a block, so that the samples are not kept with the headers
        let noise: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let members: Vec<(String, Vec<u8>)> =
            (0..3).map(|number| (format!("{number}.png"), [gray(number), noise.clone()].concat())).collect();
        let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        server.put("x.tar", tar(&members));
        server.put("x.zip", zip(&members, ::zip::CompressionMethod::Stored));
        let mut names = vec!["x.tar", "x.zip"];
        if cfg!(feature = "parquet") {
            names.push("x.parquet");
            #[cfg(feature = "parquet")]
            {
                use crate::parquet::{Row, written};
                let row = |(path, bytes)| Row { path: Some(path), bytes: Some(bytes), label: None };
                let rows: Vec<Row<'_>> = members.iter().copied().map(row).collect();
                server.put("x.parquet", written(&rows, &[], 1));
            }
        }
        for name in names {
            server.behave(Manner::Well);
            let source = open(&server.address(name), 3).unwrap();
            assert_eq!(values(&*source), [0, 1, 2], "{name}");
            let source = open(&server.address(name), 3).unwrap();
            server.behave(Manner::Status(403, 1));
            let unreadable = scan(&source, 1, &mut |_| {}).unwrap().unreadable;
            let told: Vec<_> = unreadable.iter().map(|skipped| skipped.reason.clone()).collect();
            let expected = format!("cannot read `{}:0.png`: the store denies access (403)", server.address(name));
            assert_eq!(told, [expected], "{name}");
        }
    }
}
