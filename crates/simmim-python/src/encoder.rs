//! An encoder for Python. It lives in a thread of its own, so that any thread of Python may use it, other threads run
//! meanwhile, and Ctrl-C ends the wait.

use crate::error::{exception, wrong};
use crate::pictures::{Picture, Pictures};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::{Bound, PyErr, PyResult, Python, pyclass, pymethods};
use pyo3::types::PyByteArray;
use simmim::evaluation::{Embeddings, FeatureKind, FeatureTokens, FrozenEncoder};
use simmim::precision::{PrecisionChoice, choose};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_data::{Decoding, Source};
use simmim_engine::{Device, Images};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time between two looks at whether Ctrl-C was pressed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What Python reads of an encoder.
#[derive(Clone)]
struct Facts {
    decoding: Decoding,
    image_px: (usize, usize),
    width: usize,
    depth: usize,
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// Images whose features are asked for.
enum Input {
    Source(Arc<dyn Source>),
    /// Prepared images, `[B, C, H, W]`.
    Prepared(Vec<f32>, [usize; 4]),
}

struct Request {
    input: Input,
    kind: FeatureKind,
    stop: Arc<AtomicBool>,
    reply: Sender<simmim::Result<Option<Embeddings>>>,
}

/// An encoder with its weights.
#[pyclass(frozen)]
pub(crate) struct Encoder {
    requests: Mutex<Sender<Request>>,
    facts: Facts,
}

/// Features as they go to Python: f32 values, and the shape of the array.
type Array<'py> = (Bound<'py, PyByteArray>, Vec<usize>);

#[pymethods]
impl Encoder {
    /// Loads the encoder of a run, a checkpoint or a file.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, threads: Option<usize>, precision: &str) -> PyResult<Self> {
        let precision = match precision {
            "auto" => PrecisionChoice::Auto,
            "f32" => PrecisionChoice::F32,
            "bf16" => PrecisionChoice::Bf16,
            other => return Err(wrong(format!("there is no precision `{other}`"), "give auto, f32 or bf16")),
        };
        if threads == Some(0) {
            return Err(wrong("`threads` is `0`".into(), "give at least one, or None for one per core"));
        }
        let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (requests, waiting) = channel();
        let (reply, loaded) = channel();
        std::thread::Builder::new().name("simmim".into()).spawn(move || {
            let device = CpuDevice { threads };
            let from = InitFrom::Weights { path, channels: None };
            match FrozenEncoder::load(&from, None, &[], &device, choose(precision, &device).0, 0) {
                Err(error) => _ = reply.send(Err(error)),
                Ok(encoder) => {
                    _ = reply.send(Ok(facts(&encoder)));
                    serve(&encoder, &waiting, threads);
                }
            }
        })?;
        let facts = wait(py, loaded, &AtomicBool::new(false))?.map_err(|error| exception(&error))?;
        Ok(Self { requests: Mutex::new(requests), facts })
    }

    /// Features of pictures, which are prepared as in evaluation.
    fn embed_pictures<'py>(
        &self,
        py: Python<'py>,
        pictures: Vec<Picture>,
        features: &str,
        block: Option<usize>,
    ) -> PyResult<Array<'py>> {
        let source = Pictures { pictures, decoding: self.facts.decoding };
        self.embed(py, Input::Source(Arc::new(source)), features, block)
    }

    /// Features of images that a data specification names.
    fn embed_data<'py>(
        &self,
        py: Python<'py>,
        data: String,
        features: &str,
        block: Option<usize>,
    ) -> PyResult<Array<'py>> {
        let decoding = self.facts.decoding;
        let source = py.detach(|| simmim_data::open(&data, decoding)).map_err(|error| exception(&error.into()))?;
        self.embed(py, Input::Source(source), features, block)
    }

    /// Features of images that are prepared already: f32 values, `[B, C, H, W]`.
    fn embed_prepared<'py>(
        &self,
        py: Python<'py>,
        values: &[u8],
        shape: [usize; 4],
        features: &str,
        block: Option<usize>,
    ) -> PyResult<Array<'py>> {
        let values: Vec<f32> = values.chunks_exact(4).map(|v| f32::from_ne_bytes([v[0], v[1], v[2], v[3]])).collect();
        if values.len() != shape.iter().product::<usize>() {
            return Err(wrong(
                format!("{} values do not fill shape {shape:?}", values.len()),
                "give as many as it has",
            ));
        }
        self.embed(py, Input::Prepared(values, shape), features, block)
    }

    #[getter]
    fn channels(&self) -> usize {
        self.facts.decoding.channels
    }

    #[getter]
    fn image_size(&self) -> (usize, usize) {
        self.facts.image_px
    }

    #[getter]
    fn width(&self) -> usize {
        self.facts.width
    }

    #[getter]
    fn depth(&self) -> usize {
        self.facts.depth
    }

    #[getter]
    fn mean(&self) -> Vec<f32> {
        self.facts.mean.clone()
    }

    #[getter]
    fn std(&self) -> Vec<f32> {
        self.facts.std.clone()
    }
}

impl Encoder {
    fn embed<'py>(&self, py: Python<'py>, input: Input, features: &str, block: Option<usize>) -> PyResult<Array<'py>> {
        let tokens = match features {
            "mean" => FeatureTokens::Mean,
            "class" => FeatureTokens::Class,
            "patches" => FeatureTokens::Patches,
            other => return Err(wrong(format!("there are no features `{other}`"), "give mean, class or patches")),
        };
        let (reply, computed) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let request = Request { input, kind: FeatureKind { tokens, block }, stop: Arc::clone(&stop), reply };
        let sent = self.requests.lock().unwrap_or_else(PoisonError::into_inner).send(request);
        sent.map_err(|_| ended())?;
        let found = wait(py, computed, &stop)?.map_err(|error| exception(&error))?.ok_or_else(ended)?;
        if let Some(first) = found.unreadable.first() {
            let what = format!(
                "{} images cannot be read; the first: `{}`: {}",
                found.unreadable.len(),
                first.name,
                first.reason
            );
            return Err(wrong(what, "leave them out"));
        }
        let rows = found.values.len() / found.shape.iter().product::<usize>().max(1);
        let bytes: Vec<u8> = found.values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Ok((PyByteArray::new(py, &bytes), [&[rows], &found.shape[..]].concat()))
    }
}

/// Answers requests until nobody can make one.
fn serve(encoder: &FrozenEncoder<CpuDevice>, requests: &Receiver<Request>, workers: usize) {
    for Request { input, kind, stop, reply } in requests {
        let answer = match input {
            Input::Source(source) => encoder.embeddings(&source, kind, workers, &stop),
            Input::Prepared(pixels, [count, channels, height, width]) => {
                let images = Images { pixels: &pixels, count, channels, height, width };
                encoder.embeddings_of_prepared(&images, kind, &stop)
            }
        };
        _ = reply.send(answer); // unless Ctrl-C ended the wait for it
    }
}

fn facts<D: Device>(encoder: &FrozenEncoder<D>) -> Facts {
    let spec = encoder.spec();
    let normalization = encoder.normalization().expect("what carries its recipe carries its normalization");
    let (mean, std) = (normalization.mean.clone(), normalization.std.clone());
    let (image_px, width, depth) = (spec.image_px, spec.out_width, spec.depth);
    Facts { decoding: encoder.decoding(), image_px, width, depth, mean, std }
}

/// Waits for an answer while other threads of Python run. Ctrl-C sets `stop` and ends the wait.
fn wait<T: Send>(py: Python<'_>, answer: Receiver<T>, stop: &AtomicBool) -> PyResult<T> {
    // a receiver may move to another thread, but not be shared without a lock
    let answer = Mutex::new(answer);
    loop {
        let got = py.detach(|| answer.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK_EVERY));
        match got {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
        }
    }
}

fn ended() -> PyErr {
    PyRuntimeError::new_err("the thread of this encoder ended; load it again")
}
