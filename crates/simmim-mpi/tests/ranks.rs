//! Ranks as processes: starts itself under `mpirun` with 1 to 4 ranks, and there compares collectives with plain loops.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use simmim_engine::{Activity, Collective, CollectiveError, InProcess, RankFailure, Sum};
use simmim_mpi::slices::sent_bytes;
use simmim_mpi::{Config, MpiRanks, OpenError};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A name, and what a rank does.
type Case = (&'static str, fn(usize));

/// The cases, each in processes of its own, as MPI begins once in a process.
const CASES: &[Case] = &[
    ("sums_have_the_bits_of_ranks_in_one_process", sums_have_the_bits_of_ranks_in_one_process),
    ("a_broadcast_gives_everyone_what_the_root_has", a_broadcast_gives_everyone_what_the_root_has),
    ("parts_of_sums_have_their_bits_and_parts_are_gathered", parts_of_sums_have_their_bits_and_parts_are_gathered),
    ("a_rank_that_fails_tells_all_others_why", a_rank_that_fails_tells_all_others_why),
    ("a_rank_that_does_something_else_is_named", a_rank_that_does_something_else_is_named),
    ("another_build_is_named", another_build_is_named),
    ("a_rank_that_does_not_come_is_named", a_rank_that_does_not_come_is_named),
    ("a_rank_that_works_alone_is_waited_for", a_rank_that_works_alone_is_waited_for),
    ("a_rank_that_never_comes_is_noticed_before_mpi_begins", a_rank_that_never_comes_is_noticed_before_mpi_begins),
    ("sums_beside_have_the_same_bits", sums_beside_have_the_same_bits),
];

fn main() {
    if let Ok(case) = std::env::var("SIMMIM_MPI_CASE") {
        let rank = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].iter().find_map(|name| std::env::var(name).ok()).unwrap();
        let (_, run) = CASES.iter().find(|(name, _)| *name == case).unwrap();
        return run(rank.parse().unwrap());
    }
    let mut failed = 0;
    for (name, _) in CASES {
        for world in ["1", "2", "3", "4"] {
            let output = Command::new("mpirun")
                .args(["--allow-run-as-root", "--oversubscribe", "-n", world])
                .arg(std::env::current_exe().unwrap())
                .env("SIMMIM_MPI_CASE", name)
                .envs(name.contains("beside").then_some(("SIMMIM_MPI_BESIDE", "1")))
                .output()
                .expect("mpirun starts: Open MPI is installed");
            let is_fine = output.status.success();
            println!("{name} on {world} ranks: {}", if is_fine { "ok" } else { "FAILED" });
            if !is_fine {
                failed += 1;
                println!("{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
    assert_eq!(failed, 0, "all cases pass");
}

fn open(
    identity: &str,
    patience: Duration,
    on_stall: impl Fn(&str, &[String]) + Send + Sync + 'static,
) -> Result<MpiRanks, OpenError> {
    let on_stall =
        Arc::new(move |stall: &simmim_mpi::watch::Stall, lines: &[String]| on_stall(&stall.to_string(), lines));
    let sums_beside = std::env::var_os("SIMMIM_MPI_BESIDE").is_some();
    MpiRanks::open(Config { identity, cores: "0-1", patience, on_stall, sums_beside, on_timeline: None })
}

fn ranks() -> MpiRanks {
    open("1", Duration::from_secs(60), |stall, lines| panic!("{stall} {lines:?}")).unwrap()
}

/// Values of a rank that do not sum up exactly: of both signs and of all sizes from 1e-3 to 1e3.
fn values(rank: usize, len: usize) -> Vec<f32> {
    let mut state = rank as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..len).map(|_| (next() - 0.5) * 10f32.powf(6.0 * next() - 3.0)).collect()
}

/// What ranks in threads of this process make of their values.
fn on_threads(
    world: usize,
    len: usize,
    sum: fn(&mut InProcess, &mut [f32]) -> Result<(), CollectiveError>,
) -> Vec<f32> {
    let of_rank = |mut rank: InProcess| {
        let mut own = values(rank.rank(), len);
        sum(&mut rank, &mut own).unwrap();
        own
    };
    std::thread::scope(|scope| {
        let running: Vec<_> =
            InProcess::ranks(world).into_iter().map(|rank| scope.spawn(move || of_rank(rank))).collect();
        running.into_iter().map(|rank| rank.join().unwrap()).next_back().unwrap()
    })
}

fn sums_have_the_bits_of_ranks_in_one_process(_: usize) {
    let mut ranks = ranks();
    let (rank, world) = (ranks.rank(), ranks.world());
    let mut sent = 0;
    for len in [0, 1, 2, 7, 256, 257, 1000, 100_003] {
        let in_process = on_threads(world, len, |rank, own| rank.all_reduce_sum(own));
        let in_bf16 = on_threads(world, len, |rank, own| rank.all_reduce_sum_bf16(own));
        let mut own = values(rank, len);
        ranks.all_reduce_sum_bf16(&mut own).unwrap();
        assert!(own.iter().zip(&in_bf16).all(|(a, b)| a.to_bits() == b.to_bits()), "{len} values in bf16");
        sent += sent_bytes(len, 2, rank, world);
        for _ in 0..3 {
            let mut own = values(rank, len);
            ranks.all_reduce_sum(&mut own).unwrap();
            assert!(own.iter().zip(&in_process).all(|(a, b)| a.to_bits() == b.to_bits()), "{len} values");
            sent += if len > 256 { sent_bytes(len, 4, rank, world) } else { (len * 4 * (world - 1)) as u64 };
        }
        let mut own: Vec<f64> = values(rank, len).into_iter().map(f64::from).collect();
        ranks.all_reduce_sum_f64(&mut own).unwrap();
        let expected = (0..world).fold(vec![0.0; len], |sum, rank| {
            sum.iter().zip(values(rank, len)).map(|(sum, value)| sum + f64::from(value)).collect()
        });
        assert_eq!(own, expected);
    }
    assert_eq!(ranks.traffic().sent_bytes, sent);
    assert_eq!(ranks.leave(None), None);
}

fn parts_of_sums_have_their_bits_and_parts_are_gathered(_: usize) {
    let mut ranks = ranks();
    let (rank, world) = (ranks.rank(), ranks.world());
    let mut sent = 0;
    // the last is more than is exchanged at a time; of several ranks, the first has nothing and the last the most
    for len in [0, 1, 7, 1000, 100_003, (4 << 20) + 5] {
        let mut lens = vec![0; world];
        lens[1 % world..].iter_mut().for_each(|part| *part = len / world);
        lens[world - 1] += len - lens.iter().sum::<usize>();
        let start: usize = lens[..rank].iter().sum();
        let own = start..start + lens[rank];
        let mut whole = on_threads(world, len, |rank, own| rank.all_reduce_sum(own));
        let rounded = on_threads(world, len, |rank, own| rank.all_reduce_sum_bf16(own));
        let mut parts = values(rank, len);
        ranks.reduce_scatter_sum_bf16(&mut parts, &lens).unwrap();
        if world > 1 {
            assert!(parts[own.clone()] == rounded[own.clone()], "{len} values in bf16");
        }
        let mut parts = values(rank, len);
        ranks.reduce_scatter_sum(&mut parts, &lens).unwrap();
        assert!(parts[own.clone()] == whole[own], "{len} values");
        whole.iter_mut().for_each(|value| *value *= 2.0);
        parts.iter_mut().for_each(|value| *value *= 2.0);
        ranks.all_gather(&mut parts, &lens).unwrap();
        assert!(parts == whole, "{len} values gathered");
        sent += (len - lens[rank]) * 6 + lens[rank] * (world - 1) * 4;
    }
    assert_eq!(ranks.traffic().sent_bytes, sent as u64);
}

fn a_broadcast_gives_everyone_what_the_root_has(_: usize) {
    let mut ranks = ranks();
    let (rank, last) = (ranks.rank(), ranks.world() - 1);
    let (mut values, mut bytes) = ([rank as f32; 1000], vec![rank as u8; 3 * rank + 1]);
    ranks.broadcast(&mut values, last).unwrap();
    ranks.broadcast_bytes(&mut bytes, last).unwrap();
    ranks.barrier().unwrap();
    assert_eq!((values, bytes), ([last as f32; 1000], vec![last as u8; 3 * last + 1]));
    let mut nothing = vec![1];
    if rank == 0 {
        nothing.clear();
    }
    ranks.broadcast_bytes(&mut nothing, 0).unwrap();
    assert!(nothing.is_empty());
    let of_rank = |rank: usize| vec![rank as u8; 100_000 * (rank % 3)];
    let gathered = ranks.gather_bytes(&of_rank(rank)).unwrap();
    let expected: Vec<Vec<u8>> = if rank == 0 { (0..=last).map(of_rank).collect() } else { Vec::new() };
    assert!(gathered == expected);
}

fn a_rank_that_fails_tells_all_others_why(_: usize) {
    let mut ranks = ranks();
    let (rank, last) = (ranks.rank(), ranks.world() - 1);
    ranks.barrier().unwrap();
    let failure =
        RankFailure { message: "the disk is full".into(), hint: Some("free it".into()), is_users_fault: false };
    if rank == last {
        assert_eq!(ranks.leave(Some(&failure)), None);
        return;
    }
    let error = ranks.all_reduce_sum(&mut [1.0; 1000]).unwrap_err();
    assert_eq!(error, CollectiveError { rank: last, failure: Some(Box::new(failure)) });
    assert_eq!(ranks.barrier().unwrap_err(), error, "nothing goes on after that");
    assert_eq!(ranks.leave(None), Some(error));
}

fn a_rank_that_does_something_else_is_named(_: usize) {
    let mut ranks = ranks();
    let (rank, last) = (ranks.rank(), ranks.world() - 1);
    let result = if rank == last { ranks.all_reduce_sum(&mut [0.0; 5]) } else { ranks.all_reduce_sum(&mut [0.0; 6]) };
    if last == 0 {
        return result.unwrap();
    }
    let error = result.unwrap_err();
    assert_eq!(error.rank, last);
    assert!(error.to_string().contains("an all-reduce of 5"), "{error}");
}

fn another_build_is_named(rank: usize) {
    let world: usize = std::env::var("OMPI_COMM_WORLD_SIZE").unwrap().parse().unwrap();
    let identity = if rank + 1 == world && world > 1 { "2" } else { "1" };
    let opened = open(identity, Duration::from_secs(60), |_, _| ());
    match opened.err() {
        None => assert_eq!(world, 1),
        Some(error) => {
            let expected = format!("rank {} (", world - 1);
            assert!(error.to_string().starts_with(&expected) && world > 1, "{error}");
        }
    }
}

/// The last rank does not come for 4 s, where it is waited for 1 s; what is said on the first rank is returned.
fn wait_for_the_last(activity: Activity) -> Vec<(String, Vec<String>)> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let to_say = Arc::clone(&said);
    let mut ranks = open("1", Duration::from_secs(1), move |stall, lines| {
        to_say.lock().unwrap().push((stall.to_owned(), lines.to_vec()));
    })
    .unwrap();
    ranks.announce(Activity::Step(7));
    ranks.barrier().unwrap();
    if ranks.rank() + 1 == ranks.world() {
        ranks.announce(activity);
        let since = Instant::now();
        std::thread::sleep(Duration::from_secs(4).saturating_sub(since.elapsed()));
    }
    ranks.barrier().unwrap();
    let is_told = ranks.rank() == 0 && ranks.world() > 1;
    drop(ranks);
    let said = said.lock().unwrap().clone();
    if is_told { said } else { Vec::new() }
}

fn a_rank_that_does_not_come_is_named(rank: usize) {
    let world: usize = std::env::var("OMPI_COMM_WORLD_SIZE").unwrap().parse().unwrap();
    let said = wait_for_the_last(Activity::Step(7));
    if rank == 0 && world > 1 {
        let [(stall, lines)] = &said[..] else { panic!("{said:?}") };
        let expected = format!("rank {} does not come: it computes step 7, while rank", world - 1);
        assert!(stall.starts_with(&expected) && stall.contains("waits in a barrier for 1 s"), "{stall}");
        assert!(lines.len() == world && lines[0].contains("waits in a barrier"), "{lines:?}");
    }
}

fn a_rank_that_works_alone_is_waited_for(_: usize) {
    assert_eq!(wait_for_the_last(Activity::Alone(7)), []);
}

fn a_rank_that_never_comes_is_noticed_before_mpi_begins(rank: usize) {
    let world: usize = std::env::var("OMPI_COMM_WORLD_SIZE").unwrap().parse().unwrap();
    if rank + 1 == world && world > 1 {
        std::thread::sleep(Duration::from_secs(3)); // and then it does, so that the test ends
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let to_say = Arc::clone(&said);
    let ranks = open("1", Duration::from_secs(1), move |stall, _| to_say.lock().unwrap().push(stall.to_owned()));
    drop(ranks.unwrap());
    let said = said.lock().unwrap().clone();
    if world > 1 && rank + 1 < world {
        assert!(said[0].starts_with("MPI has not begun after 1 s"), "{said:?}");
    }
}

fn sums_beside_have_the_same_bits(_: usize) {
    let mut ranks = ranks();
    let (rank, world) = (ranks.rank(), ranks.world());
    assert_eq!(ranks.sums_beside(), world > 1);
    if world == 1 {
        return;
    }
    let plain: fn(&mut InProcess, &mut [f32]) -> Result<(), CollectiveError> = |rank, own| rank.all_reduce_sum(own);
    let rounded: fn(&mut InProcess, &mut [f32]) -> Result<(), CollectiveError> =
        |rank, own| rank.all_reduce_sum_bf16(own);
    for round in 0..3 {
        let lens = [300, 0, 100_003, 7];
        for len in lens {
            let parts: Vec<usize> = simmim_mpi::slices::slices(len, world).iter().map(ExactSizeIterator::len).collect();
            for (lens, in_bf16) in [(None, false), (None, true), (Some(parts.clone()), false), (Some(parts), true)] {
                ranks.begin_sum(Sum { values: values(rank, len), lens, in_bf16 }).unwrap();
            }
        }
        let mut sums = ranks.finish_sums().unwrap().into_iter();
        for len in lens {
            for kind in 0..4 {
                let Sum { values: found, .. } = sums.next().unwrap();
                let expected = on_threads(world, len, if kind % 2 == 0 { plain } else { rounded });
                let own = if kind < 2 { 0..len } else { simmim_mpi::slices::slices(len, world)[rank].clone() };
                assert!(found[own.clone()] == expected[own], "{len} values, kind {kind}, round {round}");
            }
        }
        assert!(sums.next().is_none());
        ranks.barrier().unwrap(); // other collectives go on in between
    }
    assert_eq!(ranks.traffic().sums, 3 * 16);
    // one rank leaves while the others sum
    if rank + 1 == world {
        return;
    }
    ranks.begin_sum(Sum { values: vec![1.0; 1000], lens: None, in_bf16: false }).unwrap();
    assert_eq!(ranks.finish_sums().unwrap_err(), CollectiveError::left(world - 1));
}
