//! Array-likes in, NumPy arrays out: the only place that touches NumPy's memory.
//!
//! Whatever comes in becomes a C-contiguous, aligned array in native byte order of the
//! wanted type: the caller's own where it is one already, else a copy that NumPy makes.
//! It is read while the GIL is held, and copied before it is released, so that no thread
//! of Python can change it underneath a computation.
#![allow(unsafe_code)]

use std::fmt::Display;
use std::marker::PhantomData;

use bytemuck::Pod;
use numpy::ndarray::{ArrayD, IxDyn};
use numpy::{
    Element, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods, npyffi,
};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;
use seqrs_core::memory;
pub(crate) use seqrs_core::memory::{copied, room};

use crate::batch::check_shape;
use crate::errors;

/// Results up to this many bytes are copied into memory that NumPy allocates: that takes
/// less time than to make it free ours.
const COPIED_BYTES: usize = 16 * 1024;

/// An element type all of whose bit patterns are values, so that whatever NumPy's memory holds
/// is one. `bool` is none: NumPy lets a byte of a boolean array be anything.
pub(crate) trait Plain: Element + Pod {}

impl<T: Element + Pod> Plain for T {}

/// A C-contiguous, aligned array of `T`.
pub(crate) struct Array<'py, T> {
    array: Bound<'py, PyUntypedArray>,
    element: PhantomData<T>,
}

impl<T: Plain> Array<'_, T> {
    /// Its axes.
    pub(crate) fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// Its numbers, row by row. They must be done with before the GIL is released or
    /// Python code runs.
    pub(crate) fn numbers(&self) -> &[T] {
        let array = self.array.as_any();
        if self.array.is_empty() {
            return &[];
        }
        // SAFETY: `Array` is only made of arrays of this dtype, in `of_type`, so the memory
        // holds numbers of type T, and every bit pattern is one, by `Pod`.
        let array = unsafe { array.cast_unchecked::<PyArrayDyn<T>>() };
        // SAFETY: `of_type` saw the array contiguous and aligned. It is read with the GIL
        // held and no call into Python in between, so no Python code writes to it.
        unsafe { array.as_slice() }.expect("made contiguous")
    }
}

/// `given` as real numbers of type `T`, named `name` in messages.
///
/// # Errors
/// `DTypeError` for complex, boolean and other data, `ShapeError` for what is no array.
pub(crate) fn real<'py, T: Plain>(
    name: impl Display,
    given: &Bound<'py, PyAny>,
) -> PyResult<Array<'py, T>> {
    let array = any(&name, given)?;
    of_type(name, array, "real numbers", |kind| matches!(kind, b'f' | b'i' | b'u'))
}

/// `given` as integers, exactly.
///
/// # Errors
/// `DTypeError` for anything but integers, booleans and floats included; `ShapeError` for
/// what is no array, and for integers beyond 64 bits with sign.
pub(crate) fn integers<'py>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<Array<'py, i64>> {
    let py = given.py();
    let mut array = any(name, given)?;
    // An empty list is an array of float64 to NumPy.
    let nothing = array.is_empty() && !given.is_instance_of::<PyUntypedArray>();
    if array.dtype().kind() == b'u' && array.dtype().itemsize() == 8 && !array.is_empty() {
        let largest = array.call_method0(intern!(py, "max"))?.extract::<u64>()?;
        if largest > i64::MAX as u64 {
            return Err(errors::shape(py, name, "integers below 2**63", largest));
        }
    }
    if nothing {
        array = array
            .call_method1(intern!(py, "astype"), (numpy::dtype::<i64>(py),))?
            .cast_into::<PyUntypedArray>()?;
    }
    of_type(name, array, "integers", |kind| matches!(kind, b'i' | b'u'))
}

/// `given` as bytes of which those that are not 0 mean true: booleans, or integers that are 0
/// or 1.
///
/// # Errors
/// `DTypeError` for other data, `ShapeError` for other integers and what is no array.
pub(crate) fn booleans<'py>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<Array<'py, u8>> {
    let py = given.py();
    let mut array = any(name, given)?;
    let nothing = array.is_empty() && !given.is_instance_of::<PyUntypedArray>();
    if matches!(array.dtype().kind(), b'i' | b'u') && !array.is_empty() {
        for bound in ["min", "max"] {
            let value = array.call_method0(bound)?;
            if !matches!(value.extract::<i128>(), Ok(0 | 1)) {
                return Err(errors::shape(py, name, "booleans or integers 0 and 1", value));
            }
        }
    }
    if array.dtype().kind() == b'b' {
        array = array
            .call_method1(intern!(py, "view"), (numpy::dtype::<u8>(py),))?
            .cast_into::<PyUntypedArray>()?;
    }
    of_type(name, array, "booleans or integers 0 and 1", |kind| {
        matches!(kind, b'i' | b'u') || nothing
    })
}

/// Whether `given` holds numbers that `f32` cannot hold all of: anything but `float32`,
/// `float16`.
pub(crate) fn is_wide(name: &str, given: &Bound<'_, PyAny>) -> PyResult<bool> {
    let dtype = any(name, given)?.dtype();
    Ok(dtype.kind() != b'f' || dtype.itemsize() > 4)
}

/// `given` as an array of whatever it holds.
fn any<'py>(name: impl Display, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = given.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let py = given.py();
    let dlpack_alone = given.hasattr(intern!(py, "__dlpack__"))?
        && !given.hasattr(intern!(py, "__array__"))?
        && !given.hasattr(intern!(py, "__array_interface__"))?;
    static AS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static FROM_DLPACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let convert = match dlpack_alone {
        true => FROM_DLPACK.import(py, "numpy", "from_dlpack")?,
        false => AS_ARRAY.import(py, "numpy", "asarray")?,
    };
    match convert.call1((given,)) {
        Ok(array) => Ok(array.cast_into::<PyUntypedArray>()?),
        // Rows of different lengths, a tensor on another device or that needs a gradient.
        Err(error) if error.is_instance_of::<PyValueError>(py) => {
            Err(caused(errors::shape(py, name.to_string(), "an array", kind_of(given)), error, py))
        }
        Err(error)
            if error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyRuntimeError>(py)
                || error.is_instance_of::<PyBufferError>(py) =>
        {
            let got = format!("{} ({})", kind_of(given), error.value(py));
            Err(caused(errors::dtype(py, name.to_string(), "an array on the CPU", got), error, py))
        }
        Err(error) => Err(error),
    }
}

fn caused(error: PyErr, cause: PyErr, py: Python<'_>) -> PyErr {
    error.set_cause(py, Some(cause));
    error
}

/// What `given` is, for a message.
fn kind_of(given: &Bound<'_, PyAny>) -> String {
    let name = given.get_type().qualname();
    let name = name.map_or_else(|_| "an object".to_owned(), |name| name.to_string());
    match given.is_instance_of::<pyo3::types::PySequence>() {
        true => format!("a {name} that is no array (rows of different lengths?)"),
        false => format!("a {name}"),
    }
}

/// `array` with elements of type `T`, contiguous, if its kind is accepted.
fn of_type<'py, T: Plain>(
    name: impl Display,
    array: Bound<'py, PyUntypedArray>,
    expected: &str,
    accepts: impl Fn(u8) -> bool,
) -> PyResult<Array<'py, T>> {
    let py = array.py();
    let wanted = numpy::dtype::<T>(py);
    let have = array.dtype();
    let same = have.is_equiv_to(&wanted);
    if !same && !accepts(have.kind()) {
        return Err(errors::dtype(py, name.to_string(), expected, &have));
    }
    let array = match same && array.is_c_contiguous() && array.is_aligned() {
        true => array,
        false => quietly(py, || {
            Ok(array
                .call_method1(intern!(py, "astype"), (&wanted, intern!(py, "C")))?
                .cast_into::<PyUntypedArray>()?)
        })?,
    };
    // Of a subclass that has its own idea of `astype`.
    let fits = array.dtype().is_equiv_to(&wanted) && array.is_c_contiguous() && array.is_aligned();
    if !fits {
        return Err(errors::dtype(py, name.to_string(), expected, array.get_type()));
    }
    Ok(Array { array, element: PhantomData })
}

/// Runs `convert` without NumPy's warnings. A number beyond the range of `f32` becomes an
/// infinity, as IEEE 754 says; whether it is in padding, which must not matter, NumPy cannot
/// know.
fn quietly<R>(py: Python<'_>, convert: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    static ERRSTATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let options = [(intern!(py, "all"), intern!(py, "ignore"))].into_py_dict(py)?;
    let state = ERRSTATE.import(py, "numpy", "errstate")?.call((), Some(&options))?;
    state.call_method0(intern!(py, "__enter__"))?;
    let converted = convert();
    state.call_method1(intern!(py, "__exit__"), (py.None(), py.None(), py.None()))?;
    converted
}

/// A new array, zeros at first, which nobody else has until it is given away: so it may be written
/// to without the GIL.
pub(crate) enum Fresh<'py, T: Plain> {
    /// In NumPy's memory.
    Small(Bound<'py, PyArrayDyn<T>>),
    /// In ours, of this shape.
    Large(Vec<T>, Vec<usize>),
}

impl<'py, T: Plain + Copy> Fresh<'py, T> {
    /// Zeros.
    pub(crate) fn zeros(py: Python<'py>, shape: &[usize]) -> PyResult<Self> {
        let len = shape.iter().try_fold(1_usize, |len, &size| len.checked_mul(size));
        let len = len.ok_or_else(|| PyMemoryError::new_err("an array beyond all memory"))?;
        if len.saturating_mul(size_of::<T>()) <= COPIED_BYTES {
            return Ok(Self::Small(PyArrayDyn::zeros(py, IxDyn(shape), false)));
        }
        let numbers = memory::zeros("results", len).map_err(|error| errors::raise(py, error))?;
        Ok(Self::Large(numbers, shape.to_vec()))
    }

    /// Its numbers.
    pub(crate) fn numbers(&mut self) -> &mut [T] {
        match self {
            // SAFETY: it was made contiguous, and nobody else has it.
            Self::Small(array) => unsafe { array.as_slice_mut() }.expect("contiguous"),
            Self::Large(numbers, _) => numbers,
        }
    }

    /// The array.
    pub(crate) fn given(self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Small(array) => array.into_any(),
            Self::Large(numbers, shape) => {
                let array = ArrayD::from_shape_vec(shape, numbers).expect("of this size");
                PyArrayDyn::from_owned_array(py, array).into_any()
            }
        }
    }
}

/// Copies an array that must have this shape.
pub(crate) fn read_into<T: Plain>(
    name: &impl Display,
    given: &Bound<'_, PyAny>,
    shape: &[usize],
    to: &mut [T],
) -> PyResult<()> {
    let array = real::<T>(name, given)?;
    check_shape(given.py(), name, array.shape(), shape)?;
    to.copy_from_slice(array.numbers());
    Ok(())
}

/// An array of the caller's, for results.
pub(crate) struct Target<'py, T>(Bound<'py, PyArrayDyn<T>>);

impl<'py, T: Plain> Target<'py, T> {
    /// `given`, if it is a C-contiguous NumPy array of this type and shape that may be written to.
    pub(crate) fn new(
        name: impl Display,
        given: &Bound<'py, PyAny>,
        shape: &[usize],
    ) -> PyResult<Self> {
        let py = given.py();
        let Ok(array) = given.cast::<PyArrayDyn<T>>() else {
            let got = match given.cast::<PyUntypedArray>() {
                Ok(array) => format!("one of {}", array.dtype()),
                Err(_) => kind_of(given),
            };
            let expected = format!("an array of {}", numpy::dtype::<T>(py));
            return Err(errors::dtype(py, name.to_string(), expected, got));
        };
        check_shape(py, &name, array.shape(), shape)?;
        // SAFETY: a NumPy array has its flags for as long as it lives, and the GIL is held.
        let flags = unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr())).flags };
        let got = match flags {
            _ if flags & npyffi::NPY_ARRAY_WRITEABLE == 0 => "a read-only one",
            _ if !(array.is_c_contiguous() && array.is_aligned()) => "one that lies otherwise",
            _ => return Ok(Self(array.clone())),
        };
        let expected = "an array in C order that may be written to";
        Err(errors::shape(py, name.to_string(), expected, got))
    }

    /// Whether both lie in the same memory, in part at least.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let bytes = |target: &Self| {
            let start = target.0.data().addr();
            start..start + target.0.len() * size_of::<T>()
        };
        let (one, other) = (bytes(self), bytes(other));
        one.start < other.end && other.start < one.end
    }

    /// Writes all numbers.
    pub(crate) fn write(&self, numbers: &[T]) {
        // SAFETY: `new` saw it contiguous, aligned and writeable, and of this dtype. The GIL is
        // held and no Python code runs, so nobody else reads or writes it meanwhile.
        unsafe { self.0.as_slice_mut() }.expect("contiguous").copy_from_slice(numbers);
    }

    /// The array.
    pub(crate) fn given(self) -> Bound<'py, PyAny> {
        self.0.into_any()
    }
}

/// The numbers as a new array of this shape.
pub(crate) fn new<'py, T: Element + Copy>(
    py: Python<'py>,
    shape: &[usize],
    numbers: Vec<T>,
) -> PyResult<Bound<'py, PyAny>> {
    assert_eq!(shape.iter().product::<usize>(), numbers.len(), "an array as large as its shape");
    if numbers.len() * size_of::<T>() > COPIED_BYTES {
        let array = ArrayD::from_shape_vec(IxDyn(shape), numbers).expect("sizes compared above");
        return Ok(PyArrayDyn::from_owned_array(py, array).into_any());
    }
    // SAFETY: every element is written below, before anyone sees the array.
    let array = unsafe { PyArrayDyn::<T>::new(py, IxDyn(shape), false) };
    // SAFETY: it is new and contiguous, and nobody else has it.
    unsafe { array.as_slice_mut() }
        .map_err(|_| PyMemoryError::new_err("an array"))?
        .copy_from_slice(&numbers);
    Ok(array.into_any())
}

/// `(2, 3, 4)`, as Python writes it.
pub(crate) fn shape_words(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        _ => {
            let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
            format!("({})", axes.join(", "))
        }
    }
}
