//! One request of a range, repeated as long as what fails may pass: no store may hold up a run for ever.

use std::sync::{OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use object_store::{GetOptions, ObjectMeta};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::fault::Fault;
use super::store::Object;

/// How long is waited for a store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A try ends if nothing is delivered for so long.
    pub(super) silence: Duration,
    /// After so long no other try is made.
    pub(super) total: Duration,
}

impl Patience {
    /// While data is opened someone waits, and a wrong address is likelier than a store that will be back.
    pub(super) const OPENING: Self = Self { silence: Duration::from_secs(10), total: Duration::from_secs(20) };

    /// While a run reads nobody waits, and stores have breaks.
    pub(super) const READING: Self = Self { silence: Duration::from_secs(20), total: Duration::from_secs(120) };
}

/// Bytes per second of the slowest store that is waited for, beyond the patience.
const SLOWEST: u64 = 64 << 10;

/// The pause before the second try; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A store that was given up is not asked again for so long: else a loader that tries one image after the other would
/// wait for each of them.
const REST: Duration = Duration::from_secs(20);

/// What a store delivers.
pub(super) struct Answer {
    pub(super) meta: ObjectMeta,
    pub(super) bytes: Vec<u8>,
}

/// Asks for an object, or for the range that `options` say. No more than `most` bytes are taken, and of a range no
/// fewer. `check` sees what the store says of the object before its bytes are read.
pub(super) fn ask(
    object: &Object,
    options: GetOptions,
    most: u64,
    patience: Patience,
    check: impl Fn(&ObjectMeta) -> Result<(), Fault> + Send + Sync + 'static,
) -> Result<Answer, Fault> {
    let given_up = || object.server.given_up.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, fault)) = &*given_up()
        && since.elapsed() < REST
    {
        return Err(fault.clone());
    }
    let (answers, answer) = mpsc::sync_channel(1);
    let asked = object.clone();
    // on a thread of its own, so that a caller may have a runtime of its own
    runtime()?.spawn(async move {
        // nobody receives it if the caller panicked
        let _ = answers.send(persistent(&asked, &options, most, patience, &check).await);
    });
    let answer = answer.recv().unwrap_or_else(|_| Err(Fault::Other { what: "the request panicked".into() }));
    match &answer {
        Ok(_) => *given_up() = None,
        Err(fault @ Fault::GaveUp { .. }) => *given_up() = Some((Instant::now(), fault.clone())),
        Err(_) => {}
    }
    answer
}

/// One thread waits for all stores.
fn runtime() -> Result<&'static Runtime, Fault> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(4).thread_name("stores").enable_all();
        builder.build().map_err(|error| format!("no thread can be started: {error}"))
    };
    RUNTIME.get_or_init(started).as_ref().map_err(|what| Fault::Other { what: what.clone() })
}

/// Tries until it succeeds, what fails will not pass, or patience ends.
async fn persistent(
    object: &Object,
    options: &GetOptions,
    most: u64,
    patience: Patience,
    check: &(impl Fn(&ObjectMeta) -> Result<(), Fault> + Sync),
) -> Result<Answer, Fault> {
    // many bytes may take longer, but only as long as they come
    let (start, longest) = (Instant::now(), patience.total + Duration::from_secs(most / SLOWEST));
    let (mut tries, mut pause, mut last) = (0, FIRST_PAUSE, None);
    loop {
        tries += 1;
        let left = longest.saturating_sub(start.elapsed());
        let slow = Fault::Slow { wanted: most, seconds: longest.as_secs() };
        let fault = match timeout(left, once(object, options.clone(), most, patience.silence, check)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(fault)) if !fault.may_pass() => return Err(fault),
            Ok(Err(fault)) => fault,
            Err(_) => last.unwrap_or(slow),
        };
        if start.elapsed() + pause >= patience.total {
            return Err(Fault::GaveUp { tries, seconds: start.elapsed().as_secs(), last: Box::new(fault) });
        }
        last = Some(fault);
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// One try.
async fn once(
    object: &Object,
    options: GetOptions,
    most: u64,
    silence: Duration,
    check: &(impl Fn(&ObjectMeta) -> Result<(), Fault> + Sync),
) -> Result<Answer, Fault> {
    let silent = |_| Fault::Silent { seconds: silence.as_secs() };
    let is_range = options.range.is_some();
    let asked = object.store.get_opts(&object.path, options);
    let result = timeout(silence, asked).await.map_err(silent)?.map_err(|error| Fault::of(&error))?;
    let meta = result.meta.clone();
    check(&meta)?;
    let wanted = if is_range { most } else { meta.size };
    // memory is taken for what arrives, not for what is announced
    let mut bytes = Vec::with_capacity(wanted.min(FIRST_CAPACITY) as usize);
    let mut parts = result.into_stream();
    while let Some(part) = timeout(silence, parts.next()).await.map_err(silent)? {
        let part = part.map_err(|error| Fault::of(&error))?;
        if (bytes.len() + part.len()) as u64 > most {
            return Err(Fault::Other { what: format!("the store delivers more than {most} bytes") });
        }
        bytes.extend_from_slice(&part);
    }
    match bytes.len() as u64 {
        got if got < wanted => Err(Fault::CutShort { got, wanted }),
        _ => Ok(Answer { meta, bytes }),
    }
}

const FIRST_CAPACITY: u64 = 8 << 20;
