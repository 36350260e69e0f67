//! The handle of a batcher, and how answers come to an event loop.
//!
//! A request is read and checked with the GIL, by the thread that asks, and brings the model of
//! that moment. Answers become arrays in the thread, or on the loop, that waits for them; the
//! batcher's own thread needs the GIL only to tell a loop that there are some.

use std::cell::Cell;
use std::process;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use seqrs::batcher::{
    Answer, BatcherOptions, Dispatcher, Failure, Histogram, Sequence, Served, Statistics, Ticket,
};
use seqrs::number::{DType, Number};
use seqrs::sequential::{Input, Output};
use seqrs::{Layer, Sequential};
use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;

use crate::arrays::{self, copied, shape_words};
use crate::batch::Reads;
use crate::device::locked;
use crate::entry::{compute, guard};
use crate::errors::{self, Class};
use crate::layer::AnyNetwork;
use crate::network::{Elem, Network, reads};
use crate::owner::Owner;

impl<T: Elem> Served<T> for Network<T> {
    fn model(&self) -> &Sequential<T> {
        &self.model
    }

    fn infer(&self, x: Input<'_, T>, steps: &Steps) -> Result<Output<T>, Error> {
        let mut state = self.model.zero_state(steps.batch())?;
        match &self.resident {
            Some(resident) => T::infer_on_gpu(&resident.model, x, steps, &mut state),
            None => self.model.infer_on(&Cpu::new()?, x, steps, &mut state),
        }
    }
}

/// What requests are for.
struct Current<T: Number> {
    owner: Owner,
    /// The model of the last request: those of the same parameters share batches.
    last: Option<Arc<Network<T>>>,
}

/// A dispatcher of one number type, and the model that requests are for.
struct Desk<T: Kind> {
    dispatcher: Dispatcher<T>,
    /// Locked for moments, with the GIL, so that no fork finds it locked.
    current: Mutex<Current<T>>,
}

impl<T: Kind> Desk<T> {
    fn new(owner: Owner, options: BatcherOptions) -> Result<Self, Error> {
        let current = Mutex::new(Current { owner, last: None });
        Ok(Self { dispatcher: Dispatcher::new(options)?, current })
    }

    /// The model of this moment; the very one of the last request where nothing has changed.
    fn model(&self, py: Python<'_>) -> PyResult<Arc<dyn Served<T>>> {
        let owner = locked(&self.current).owner.clone_ref(py);
        let network = T::network(owner.placed(py)?).expect("compared when it was taken");
        let mut current = locked(&self.current);
        if let Some(last) = &current.last
            && is_same(last, &network)
        {
            let last: Arc<Network<T>> = Arc::clone(last);
            return Ok(last);
        }
        let network = Arc::new(network);
        current.last = Some(Arc::clone(&network));
        Ok(network)
    }

    /// The request, with the model that it is for.
    fn read(&self, x: &Bound<'_, PyAny>) -> PyResult<(Arc<dyn Served<T>>, Sequence<T>)> {
        let model = self.model(x.py())?;
        let sequence = sequence(x, reads(model.model()));
        let sequence = sequence.inspect_err(|_| self.dispatcher.count_failed())?;
        Ok((model, sequence))
    }
}

/// Whether both compute the same: no other layer has the version of one with parameters, and those
/// without do not change while the owner is the same.
fn is_same<T: Number>(a: &Network<T>, b: &Network<T>) -> bool {
    let versions = |network: &Network<T>| {
        network.model.layers().iter().map(Layer::version).collect::<Vec<_>>()
    };
    let device = |network: &Network<T>| network.resident.as_ref().map(Arc::as_ptr);
    a.owner == b.owner && versions(a) == versions(b) && device(a) == device(b)
}

/// One sequence of the caller's.
fn sequence<T: Elem>(x: &Bound<'_, PyAny>, reads: Reads) -> PyResult<Sequence<T>> {
    let py = x.py();
    let refuse =
        |expected: &str, shape: &[usize]| Err(errors::shape(py, "x", expected, shape_words(shape)));
    let raise = |error| errors::raise(py, error);
    match reads {
        Reads::Ids(_) => {
            let ids = arrays::integers("x", x)?;
            match ids.shape() {
                [_] => Ok(Sequence::Ids(copied("x", ids.numbers()).map_err(raise)?)),
                shape => refuse("shape (T,)", shape),
            }
        }
        Reads::Numbers(wanted) => {
            let numbers = arrays::real::<T>("x", x)?;
            match *numbers.shape() {
                [steps, width] if wanted.is_none_or(|wanted| wanted == width) => {
                    let data = copied("x", numbers.numbers()).map_err(raise)?;
                    Ok(Sequence::Numbers { data, width, steps })
                }
                ref shape => {
                    let width = wanted.map_or_else(|| "F".to_owned(), |width| width.to_string());
                    refuse(&format!("shape (T, {width})"), shape)
                }
            }
        }
    }
}

/// The number types, as batchers hold them.
trait Kind: Elem {
    fn network(any: AnyNetwork) -> Option<Network<Self>>;
    fn answer(answer: Result<Answer<Self>, Failure>) -> AnyAnswer;
    fn ticket(ticket: Ticket<Self>) -> AnyTicket;
}

impl Kind for f32 {
    fn network(any: AnyNetwork) -> Option<Network<Self>> {
        if let AnyNetwork::F32(network) = any { Some(network) } else { None }
    }
    fn answer(answer: Result<Answer<Self>, Failure>) -> AnyAnswer {
        AnyAnswer::F32(answer)
    }
    fn ticket(ticket: Ticket<Self>) -> AnyTicket {
        AnyTicket::F32(ticket)
    }
}

impl Kind for f64 {
    fn network(any: AnyNetwork) -> Option<Network<Self>> {
        if let AnyNetwork::F64(network) = any { Some(network) } else { None }
    }
    fn answer(answer: Result<Answer<Self>, Failure>) -> AnyAnswer {
        AnyAnswer::F64(answer)
    }
    fn ticket(ticket: Ticket<Self>) -> AnyTicket {
        AnyTicket::F64(ticket)
    }
}

/// An answer of either number type.
enum AnyAnswer {
    F32(Result<Answer<f32>, Failure>),
    F64(Result<Answer<f64>, Failure>),
}

impl AnyAnswer {
    /// As an array, or as an exception.
    fn into_array(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        fn array<T: Elem>(
            py: Python<'_>,
            answer: Result<Answer<T>, Failure>,
        ) -> PyResult<Bound<'_, PyAny>> {
            let answer = answer.map_err(|failure| raise(py, failure))?;
            arrays::new(py, &answer.shape(), answer.numbers)
        }
        match self {
            Self::F32(answer) => array(py, answer),
            Self::F64(answer) => array(py, answer),
        }
    }
}

/// The exception for a failure.
fn raise(py: Python<'_>, failure: Failure) -> PyErr {
    let message = failure.to_string();
    match failure {
        Failure::Model(error) => errors::raise(py, error),
        Failure::Full(_) => Class::QueueFull.raise(py, message),
        Failure::Late => PyTimeoutError::new_err(message),
        Failure::Closed => Class::State.raise(py, message),
        Failure::NoThread => PyRuntimeError::new_err(message),
        _ => Class::Internal.raise(py, message),
    }
}

/// A ticket of either number type.
enum AnyTicket {
    F32(Ticket<f32>),
    F64(Ticket<f64>),
}

/// A request that an event loop waits for.
#[pyclass(frozen, name = "Ticket", module = "seqrs._seqrs")]
pub(crate) struct PyTicket(AnyTicket);

#[pymethods]
impl PyTicket {
    /// Gives the request up; False if it has been answered, or given up, before.
    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        guard(py, || {
            Ok(match &self.0 {
                AnyTicket::F32(ticket) => ticket.cancel(),
                AnyTicket::F64(ticket) => ticket.cancel(),
            })
        })
    }

    /// The same, as its time is over.
    fn expire(&self, py: Python<'_>) -> PyResult<bool> {
        guard(py, || {
            Ok(match &self.0 {
                AnyTicket::F32(ticket) => ticket.expire(),
                AnyTicket::F64(ticket) => ticket.expire(),
            })
        })
    }
}

/// Answers on their way to the futures of one event loop, for Python.
#[pyclass(frozen, name = "Mailbox", module = "seqrs._seqrs")]
pub(crate) struct Mailbox(Arc<Letters>);

/// Answers on their way to the futures of one event loop.
///
/// The loop is called when there is one where there was none, so for all answers of a batch it
/// is called about once, and the GIL is needed as often: a thread that has asked for it waits
/// for whoever has it, up to 5 ms each time.
struct Letters {
    event_loop: Py<PyAny>,
    /// Futures and their answers.
    arrived: Mutex<Vec<(Py<PyAny>, AnyAnswer)>>,
}

#[pymethods]
impl Mailbox {
    /// For this loop.
    #[new]
    fn new(event_loop: Py<PyAny>) -> Self {
        Self(Arc::new(Letters { event_loop, arrived: Mutex::default() }))
    }

    /// The loop.
    #[getter]
    fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.event_loop.bind(py)
    }

    /// Gives the futures what has arrived; the loop calls it.
    fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        guard(py, || {
            let arrived = std::mem::take(&mut *locked(&self.0.arrived));
            for (future, answer) in arrived {
                let future = future.bind(py);
                // An odd future takes no other one's answer away.
                if let Err(error) = resolve(future, answer) {
                    error.write_unraisable(py, Some(future));
                }
            }
            Ok(())
        })
    }
}

impl Letters {
    /// Has the loop deliver.
    fn call(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let deliver = Py::new(py, Mailbox(Arc::clone(self)))?;
        let deliver = deliver.bind(py).getattr(intern!(py, "deliver"))?;
        let event_loop = self.event_loop.bind(py);
        event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (deliver,))?;
        Ok(())
    }
}

fn resolve(future: &Bound<'_, PyAny>, answer: AnyAnswer) -> PyResult<()> {
    let py = future.py();
    // One that was cancelled.
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match answer.into_array(py) {
        Ok(y) => future.call_method1(intern!(py, "set_result"), (y,)),
        Err(error) => future.call_method1(intern!(py, "set_exception"), (error.value(py),)),
    }
    .map(drop)
}

/// Puts an answer into the mailbox and calls its loop if need be.
fn post(letters: Arc<Letters>, future: Py<PyAny>, answer: AnyAnswer) {
    let first = {
        let mut arrived = locked(&letters.arrived);
        arrived.push((future, answer));
        arrived.len() == 1
    };
    // An interpreter that is about to end has no loops.
    if first {
        let _: Option<()> = Python::try_attach(|py| {
            // A loop that was closed meanwhile: nobody waits any more.
            if letters.call(py).is_err() {
                let nobodys = std::mem::take(&mut *locked(&letters.arrived));
                drop(nobodys);
            }
        });
    }
    // What was Python's goes with the GIL.
    if let Some(last) = Arc::into_inner(letters) {
        let _: Option<()> = Python::try_attach(|_| drop(last));
    }
}

enum AnyDesk {
    F32(Desk<f32>),
    F64(Desk<f64>),
}

/// Runs the body with the desk inside, whatever its number type.
macro_rules! with_desk {
    ($any:expr, $desk:ident => $body:expr) => {
        match $any {
            AnyDesk::F32($desk) => $body,
            AnyDesk::F64($desk) => $body,
        }
    };
}

/// Takes requests and computes them as batches.
#[pyclass(frozen, name = "Batcher", module = "seqrs._seqrs")]
pub(crate) struct PyBatcher(AnyDesk);

impl PyBatcher {
    /// Has a panic where a model would compute.
    pub(crate) fn panic(&self, py: Python<'_>, words: &str) -> PyResult<()> {
        with_desk!(&self.0, desk => desk.panic(py, words))
    }
}

impl<T: Kind> Desk<T> {
    fn predict<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        deadline: Option<Instant>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = x.py();
        let (model, sequence) = self.read(x)?;
        let predict = || self.dispatcher.predict(model, sequence, deadline);
        let answer = match is_main_thread(py)? {
            true => compute(py, || Ok(predict()))?,
            // No signal reaches it, so a thousand that wait need not wake up to look for one.
            false => py.detach(predict),
        };
        T::answer(answer).into_array(py)
    }

    fn submit(
        &self,
        x: &Bound<'_, PyAny>,
        deadline: Option<Instant>,
        mailbox: &Mailbox,
        future: Py<PyAny>,
    ) -> PyResult<PyTicket> {
        let (model, sequence) = self.read(x)?;
        let letters = Arc::clone(&mailbox.0);
        let done = move |answer| post(letters, future, T::answer(answer));
        let ticket = self.dispatcher.submit(model, sequence, deadline, done);
        let ticket = ticket.map_err(|failure| raise(x.py(), failure))?;
        Ok(PyTicket(T::ticket(ticket)))
    }

    fn swap(&self, py: Python<'_>, owner: Owner) -> PyResult<()> {
        let dtype = owner.number_type();
        if dtype != T::DTYPE {
            let expected = format!("{}, as the one before", T::DTYPE);
            return Err(errors::dtype(py, "model", expected, dtype));
        }
        let fresh = Current { owner, last: None };
        let before = std::mem::replace(&mut *locked(&self.current), fresh);
        drop(before);
        Ok(())
    }

    fn panic(&self, py: Python<'_>, words: &str) -> PyResult<()> {
        struct Panics<T: Number>(Arc<dyn Served<T>>, String);
        impl<T: Kind> Served<T> for Panics<T> {
            fn model(&self) -> &Sequential<T> {
                self.0.model()
            }
            fn infer(&self, _: Input<'_, T>, _: &Steps) -> Result<Output<T>, Error> {
                panic!("{}", self.1)
            }
        }
        let model = self.model(py)?;
        let x = match reads(model.model()) {
            Reads::Ids(_) => Sequence::Ids(Vec::new()),
            Reads::Numbers(width) => {
                Sequence::Numbers { data: Vec::new(), width: width.unwrap_or(1), steps: 0 }
            }
        };
        let model = Arc::new(Panics(model, words.to_owned()));
        let answer = compute(py, || Ok(self.dispatcher.predict(model, x, None)))?;
        T::answer(answer).into_array(py).map(drop)
    }
}

/// Whether this is the thread that runs signal handlers.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    thread_local! {
        /// The process in which it was asked, as a fork makes any thread the main one; and the answer.
        static KNOWN: Cell<Option<(u32, bool)>> = const { Cell::new(None) };
    }
    let process = process::id();
    match KNOWN.get() {
        Some((before, known)) if before == process => Ok(known),
        _ => {
            let threading = py.import(intern!(py, "threading"))?;
            let main = threading.call_method0(intern!(py, "main_thread"))?;
            let own = threading.call_method0(intern!(py, "get_ident"))?;
            let known = main.getattr(intern!(py, "ident"))?.eq(own)?;
            KNOWN.set(Some((process, known)));
            Ok(known)
        }
    }
}

/// When so many seconds are over; none is never, and so is what the clock cannot show.
fn deadline(timeout: Option<f64>) -> Option<Instant> {
    Instant::now().checked_add(Duration::try_from_secs_f64(timeout?).ok()?)
}

#[pymethods]
impl PyBatcher {
    /// For this model.
    #[new]
    #[pyo3(signature = (model, max_batch, max_queue, max_wait))]
    fn new(
        py: Python<'_>,
        model: Owner,
        max_batch: usize,
        max_queue: usize,
        max_wait: f64,
    ) -> PyResult<Self> {
        guard(py, || {
            let max_wait = Duration::try_from_secs_f64(max_wait).unwrap_or(Duration::MAX);
            let options = BatcherOptions { max_batch, max_queue, max_wait };
            let desk = match model.number_type() {
                DType::F32 => Desk::new(model, options).map(AnyDesk::F32),
                DType::F64 => Desk::new(model, options).map(AnyDesk::F64),
            };
            Ok(Self(desk.map_err(|error| errors::raise(py, error))?))
        })
    }

    /// The answer; waits for it.
    #[pyo3(signature = (x, timeout))]
    fn predict<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        guard(x.py(), || with_desk!(&self.0, desk => desk.predict(x, deadline(timeout))))
    }

    /// Takes a request; the future gets the answer through the mailbox of its loop.
    #[pyo3(signature = (x, timeout, mailbox, future))]
    fn submit(
        &self,
        x: &Bound<'_, PyAny>,
        timeout: Option<f64>,
        mailbox: &Mailbox,
        future: Py<PyAny>,
    ) -> PyResult<PyTicket> {
        guard(
            x.py(),
            || with_desk!(&self.0, desk => desk.submit(x, deadline(timeout), mailbox, future)),
        )
    }

    /// Another model from now on.
    fn swap(&self, py: Python<'_>, model: Owner) -> PyResult<()> {
        guard(py, || with_desk!(&self.0, desk => desk.swap(py, model)))
    }

    /// Takes no more requests, and waits until nothing is left to do.
    fn close(&self, py: Python<'_>, drain: bool) -> PyResult<()> {
        guard(py, || with_desk!(&self.0, desk => compute(py, || desk.dispatcher.close(drain))))
    }

    /// Whether it takes no more requests.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        guard(py, || with_desk!(&self.0, desk => Ok(desk.dispatcher.is_closed())))
    }

    /// Makes itself at home in a forked child.
    fn after_fork(&self, py: Python<'_>) -> PyResult<()> {
        guard(py, || {
            with_desk!(&self.0, desk => desk.dispatcher.after_fork());
            Ok(())
        })
    }

    /// What it has done.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        guard(py, || with_desk!(&self.0, desk => written(py, &desk.dispatcher.statistics())))
    }
}

fn written<'py>(py: Python<'py>, found: &Statistics) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("submitted", found.submitted),
        ("done", found.done),
        ("failed", found.failed),
        ("cancelled", found.cancelled),
        ("expired", found.expired),
        ("refused", found.refused),
        ("waiting", found.waiting as u64),
        ("running", found.running as u64),
        ("batches", found.batches),
    ] {
        dict.set_item(name, count)?;
    }
    let sizes = PyDict::new(py);
    for (k, &count) in found.batch_sizes.iter().enumerate().filter(|(_, count)| **count > 0) {
        sizes.set_item(k + 1, count)?;
    }
    dict.set_item("batch_sizes", sizes)?;
    dict.set_item("queue_seconds", histogram(py, &found.queue)?)?;
    dict.set_item("latency_seconds", histogram(py, &found.latency)?)?;
    dict.set_item("padding_share", found.padding_share())?;
    dict.set_item("padding_cost", found.padding_cost())?;
    Ok(dict)
}

fn histogram<'py>(py: Python<'py>, found: &Histogram) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("bounds", Histogram::bounds().to_vec())?;
    dict.set_item("counts", found.counts().to_vec())?;
    dict.set_item("sum", found.sum().as_secs_f64())?;
    Ok(dict)
}
