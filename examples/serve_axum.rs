//! A model inside a service: axum takes the requests, seqrs answers them.
//!
//! ```sh
//! cargo run --release --package seqrs-examples --bin serve_axum -- --listen 127.0.0.1:8000
//! curl localhost:8000/classify --json '[[0.1, 0, 0, 0, 0, 0, 0, 1], [0.2, 0, 0, 0, 0, 0, 0, 1]]'
//! curl -X POST localhost:8000/stream   # the number of a new stream, say 1
//! curl localhost:8000/stream/1 --json '[[0.1, 0, 0, 0, 0, 0, 0, 1]]'
//! curl -X DELETE localhost:8000/stream/1
//! ```
//! - `POST /classify`: the output after the last step of a sequence. Requests that come at the same
//!   time are computed as one batch, by a [`Batcher`]. `x-timeout-ms` says how long it may take.
//! - `POST /stream` opens a stream, `POST /stream/{id}` makes one step of it, `DELETE /stream/{id}`
//!   ends it. Steps that come at the same time are one step of a [`StreamPool`].
//! - `GET /health` and `GET /metrics`, the latter as Prometheus reads it.
//!
//! Rows are JSON, or, with any other content type, `f32` numbers in little-endian order; the answer
//! has the same form. SIGTERM and Ctrl-C end it when what was asked before is answered.
//!
//! Options: `--listen`, `--max-queue`, `--idle` (seconds after which an unused stream is ended),
//! `--drain` (seconds that it waits at the end), and a model file; without one the weights are drawn.

use std::collections::{HashMap, HashSet};
use std::env;
use std::error::Error;
use std::fmt::Write;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use seqrs::batcher::{Failure, Histogram};
use seqrs::ndarray::Array2;
use seqrs::stream_pool::Stream;
use seqrs::{Batcher, BatcherOptions, Gru, Layer, Linear, Sequential, StreamPool};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// Streams that may be open at a time, and how many of them are stepped as one batch.
const STREAMS: usize = 10_000;
const BATCH: usize = 1024;

struct App {
    fingerprint: String,
    /// How many numbers a step reads.
    width: usize,
    batcher: Batcher<f32>,
    pool: StreamPool<f32>,
    /// A client knows its stream by a number. Whoever knows the number may use the stream: where
    /// clients do not trust each other, a service asks who they are.
    streams: Mutex<HashMap<u64, Stream>>,
    next: AtomicU64,
    steps: mpsc::Sender<Step>,
}

/// One step of a stream, and where its output goes.
struct Step {
    stream: Stream,
    x: Vec<f32>,
    done: oneshot::Sender<Result<Vec<f32>, seqrs::Error>>,
}

/// Why a request has no answer: a status, and words that say what was expected and what came.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl From<seqrs::Error> for Refusal {
    fn from(error: seqrs::Error) -> Self {
        let status = match error {
            seqrs::Error::Shape { .. } | seqrs::Error::DType { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            seqrs::Error::State { .. } => StatusCode::CONFLICT,
            seqrs::Error::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure {
            Failure::Model(error) => return error.into(),
            Failure::Full(_) | Failure::Closed | Failure::NoThread => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Failure::Late => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, failure.to_string())
    }
}

fn wrong(words: impl ToString) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, words.to_string())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// The rows that a request brings. Whether the model can read them, the model says.
fn read(headers: &HeaderMap, body: &[u8], width: usize) -> Result<Array2<f32>, Refusal> {
    if is_json(headers) {
        let rows: Vec<Vec<f32>> = serde_json::from_slice(body).map_err(wrong)?;
        let shape = (rows.len(), rows.first().map_or(width, Vec::len));
        let ragged = |_| wrong("x: expected rows of one length, got several lengths");
        return Array2::from_shape_vec(shape, rows.concat()).map_err(ragged);
    }
    let (numbers, rest) = body.as_chunks::<4>();
    if !rest.is_empty() || numbers.len() % width != 0 {
        let (expected, got) = (4 * width, body.len());
        return Err(wrong(format!("x: expected rows of {expected} bytes, got {got} bytes")));
    }
    let numbers = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Array2::from_shape_vec((body.len() / (4 * width), width), numbers).map_err(wrong)
}

/// The answer, in the form of the question.
fn write(headers: &HeaderMap, y: &[f32]) -> Response {
    if is_json(headers) {
        let text = serde_json::to_string(y).expect("a list of numbers");
        return ([(CONTENT_TYPE, "application/json")], text).into_response();
    }
    y.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>().into_response()
}

async fn classify(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let x = read(&headers, &body, app.width)?;
    let time = match headers.get("x-timeout-ms") {
        Some(text) => text.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            wrong(format!("x-timeout-ms: expected a number of milliseconds, got {text:?}"))
        })?,
        None => 10_000,
    };
    // The future that is dropped gives the request up, here and when the client goes away.
    let answer = timeout(Duration::from_millis(time), app.batcher.predict_async(&x)).await;
    let y = answer.unwrap_or(Err(Failure::Late))?;
    Ok(write(&headers, y.as_slice().expect("packed")))
}

impl App {
    fn streams(&self) -> MutexGuard<'_, HashMap<u64, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self, id: u64) -> Result<Stream, Refusal> {
        let words = || format!("stream: expected one that is open, got {id}");
        let found = self.streams().get(&id).copied();
        found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, words()))
    }

    /// Steps what has come since the last time, again and again. Streams do not know of each other,
    /// so each gets the bits that it would get alone.
    fn step_all(&self, mut steps: mpsc::Receiver<Step>) {
        let mut batch = Vec::new();
        while steps.blocking_recv_many(&mut batch, BATCH) > 0 {
            match self.step(&batch) {
                Ok(y) => batch.drain(..).zip(y.outer_iter()).for_each(|(step, y)| {
                    let _ = step.done.send(Ok(y.to_vec()));
                }),
                // A step is done wholly or not at all: if one stream is closed by now, or there
                // twice, each is stepped by itself.
                Err(_) => batch.drain(..).for_each(|step| {
                    let y = self.step(std::slice::from_ref(&step));
                    let _ = step.done.send(y.map(|y| y.into_raw_vec_and_offset().0));
                }),
            }
        }
    }

    fn step(&self, batch: &[Step]) -> Result<Array2<f32>, seqrs::Error> {
        let streams: Vec<Stream> = batch.iter().map(|step| step.stream).collect();
        let x = batch.iter().flat_map(|step| &step.x).copied().collect();
        let x = Array2::from_shape_vec((batch.len(), self.width), x).expect("rows of one width");
        self.pool.step(&streams, x.view())
    }
}

async fn open(State(app): State<Arc<App>>) -> Result<String, Refusal> {
    let (stream, id) = (app.pool.open()?, app.next.fetch_add(1, Ordering::Relaxed));
    app.streams().insert(id, stream);
    Ok(id.to_string())
}

async fn step(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (stream, x) = (app.stream(id)?, read(&headers, &body, app.width)?);
    if x.dim() != (1, app.width) {
        let (rows, width) = x.dim();
        let expected = app.width;
        return Err(wrong(format!("x: expected shape (1, {expected}), got ({rows}, {width})")));
    }
    let (done, answer) = oneshot::channel();
    let full = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many steps wait".into());
    app.steps.try_send(Step { stream, x: x.into_iter().collect(), done }).map_err(full)?;
    let lost = |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the step was lost".into());
    Ok(write(&headers, &answer.await.map_err(lost)??))
}

async fn close(State(app): State<Arc<App>>, Path(id): Path<u64>) -> Result<StatusCode, Refusal> {
    app.pool.close(app.stream(id)?)?;
    app.streams().remove(&id);
    Ok(StatusCode::NO_CONTENT)
}

async fn end_idle_streams(app: Arc<App>, idle: Duration) {
    loop {
        sleep((idle / 4).max(Duration::from_millis(10))).await;
        let mut gone = HashSet::new();
        let leaving = |stream| {
            gone.insert(stream);
        };
        if app.pool.evict_idle(idle, leaving) > 0 {
            app.streams().retain(|_, stream| !gone.contains(stream));
        }
    }
}

async fn health(State(app): State<Arc<App>>) -> String {
    format!("ok, model {}\n", app.fingerprint)
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    let (batcher, pool) = (app.batcher.statistics(), app.pool.stats());
    let mut text = String::new();
    for (name, kind, number) in [
        ("requests_done_total", "counter", batcher.done),
        ("requests_failed_total", "counter", batcher.failed),
        ("requests_cancelled_total", "counter", batcher.cancelled),
        ("requests_refused_total", "counter", batcher.refused),
        ("requests_waiting", "gauge", batcher.waiting as u64),
        ("requests_running", "gauge", batcher.running as u64),
        ("batches_total", "counter", batcher.batches),
        ("streams_open", "gauge", pool.open as u64),
        ("streams_evicted_total", "counter", pool.evicted),
        ("stream_batches_total", "counter", pool.steps),
        ("stream_steps_total", "counter", pool.stream_steps),
    ] {
        let _ = writeln!(text, "# TYPE seqrs_{name} {kind}\nseqrs_{name} {number}");
    }
    let latency = &batcher.latency;
    let mut count = 0;
    text += "# TYPE seqrs_latency_seconds histogram\n";
    let bounds = Histogram::bounds().into_iter().chain([f64::INFINITY]);
    for (bound, more) in bounds.zip(latency.counts()) {
        count += more;
        let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
        let _ = writeln!(text, "seqrs_latency_seconds_bucket{{le=\"{bound}\"}} {count}");
    }
    let sum = latency.sum().as_secs_f64();
    let _ = writeln!(text, "seqrs_latency_seconds_sum {sum}\nseqrs_latency_seconds_count {count}");
    text
}

/// Is ready when the process is told to stop; it listens for that from now on.
#[cfg(unix)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    })
}

#[cfg(windows)]
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move { drop(interrupt.recv().await) })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut listen, mut file) = (String::from("127.0.0.1:8000"), None);
    let mut options = BatcherOptions::default();
    let (mut idle, mut drain) = (Duration::from_secs(600), Duration::from_secs(30));
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name}: expected a value, got none"));
        match name.as_str() {
            "--listen" => listen = value()?,
            "--max-queue" => options.max_queue = value()?.parse()?,
            "--idle" => idle = Duration::try_from_secs_f64(value()?.parse()?)?,
            "--drain" => drain = Duration::try_from_secs_f64(value()?.parse()?)?,
            _ => file = Some(name),
        }
    }

    let model = match file {
        Some(path) => Sequential::<f32>::load(path)?,
        None => Sequential::new(vec![Gru::new(8, 64).build()?, Linear::new(64, 3).build()?])?
            .reseeded(0)?,
    };
    let width = model.input_width().filter(|&width| width > 0);
    let width = width.ok_or("model: expected one that reads numbers, got one that does not")?;
    let classifier = Sequential::new([model.layers(), &[Layer::Last]].concat())?;
    let (steps, received) = mpsc::channel(4 * BATCH);
    let app = Arc::new(App {
        fingerprint: model.fingerprint(),
        width,
        batcher: Batcher::new(classifier, options)?,
        pool: StreamPool::new(model, STREAMS)?,
        streams: Mutex::default(),
        next: AtomicU64::new(1),
        steps,
    });
    // What computes for long does not do so on the threads that take requests.
    let stepping = Arc::clone(&app);
    thread::Builder::new().name("steps".into()).spawn(move || stepping.step_all(received))?;
    tokio::spawn(end_idle_streams(Arc::clone(&app), idle));

    let routes = Router::new()
        .route("/classify", post(classify))
        .route("/stream", post(open))
        .route("/stream/{id}", post(step).delete(close))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&app));
    let (stop, stopping) = (told_to_stop()?, Arc::new(Notify::new()));
    let listener = TcpListener::bind(listen).await?;
    println!("listening on http://{}", listener.local_addr()?);

    // Takes no more connections when it is told to stop, and ends when all requests are answered,
    // or when that takes too long: a client may never send the rest of its request.
    let told = Arc::clone(&stopping);
    let serve = axum::serve(listener, routes).with_graceful_shutdown(async move {
        stop.await;
        told.notify_one();
    });
    let in_time = tokio::select! {
        result = serve.into_future() => result.map(|()| true)?,
        () = async { stopping.notified().await; sleep(drain).await } => false,
    };
    app.batcher.close(in_time)?;
    if in_time { Ok(()) } else { Err("some requests were given up".into()) }
}
