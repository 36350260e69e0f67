//! What a device must be able to do.
//!
//! The driver in [`crate::sequence`] owns the order of layers, the tape and the states;
//! a backend runs one layer, all its directions, over all steps, forwards and back. It
//! keeps the weights in a form of its own. Buffers are opaque to the driver, so that they
//! may lie on another device.
//!
//! # Order of summation
//! On every CPU backend each element of each product is one chain of fused
//! multiply-adds, its index ascending, starting from the bias (or from zero, or from what
//! is there already). The order depends on nothing else: not on the number of rows, nor on
//! threads, chunks or the instruction set. That one rule is why a row's result has the
//! same bits alone and in a batch, step by step and as a sequence, on one thread and on
//! many.

use std::ops::{Deref, DerefMut};

use crate::Error;
use crate::real::Real;
use crate::rows::{Rows, RowsMut};
use crate::spec::Shape;
use crate::steps::Steps;

/// A device.
pub trait Backend: Sync {
    /// The numbers it computes with.
    type Elem: Real;
    /// A borrowed run of numbers, `[T]` for the host.
    type Slice: ?Sized;
    /// An owned run of numbers.
    type Buffer: Deref<Target = Self::Slice> + DerefMut + Send + Sync;
    /// What is needed for a while: tapes, and gradients on their way from layer to layer.
    type Scratch: Deref<Target = Self::Slice> + DerefMut + Send + Sync;
    /// The parameters of one direction of one layer, in the form the backend likes.
    type Weights: Send + Sync;
    /// What one direction of a layer keeps on the way forward for the way back.
    type Record: Send + Sync;

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn zeros(&self, len: usize) -> Result<Self::Buffer, Error>;

    /// `len` numbers, whatever they are: each is written before it is read.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn blank(&self, len: usize) -> Result<Self::Scratch, Error>;

    /// A copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn copy(&self, from: &Self::Slice) -> Result<Self::Buffer, Error>;

    /// Writes the live rows, `width` numbers each, to `to`, one after the other.
    fn pack_rows(
        &self,
        from: Rows<'_, Self::Slice>,
        steps: &Steps,
        width: usize,
        to: &mut Self::Slice,
    );

    /// The element-wise product.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn times(&self, a: &Self::Slice, b: &Self::Slice) -> Result<Self::Scratch, Error>;

    /// The parameters of one direction, prepared for [`Backend::forward`] and
    /// [`Backend::backward`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn weights(&self, shape: &Shape, parameters: &Self::Slice) -> Result<Self::Weights, Error>;

    /// An empty record of one direction.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn record(&self, shape: &Shape, items: usize, batch: usize) -> Result<Self::Record, Error>;

    /// One layer over all steps. Each slot of the state goes from its initial to its final
    /// value; the outputs of live items are written to `y`, nothing else of `y` is touched.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Interrupted`].
    fn forward(&self, run: Forward<'_, Self>) -> Result<(), Error>;

    /// The way back of [`Backend::forward`]. The gradient of each slot of the state goes
    /// from that of the final to that of the initial value; those of the parameters are
    /// added to `d_parameters`, that of the input is written to `d_x`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Interrupted`].
    fn backward(&self, run: Backward<'_, Self>) -> Result<(), Error>;
}

/// The states of a stack of layers: (slots, B, size) for h, and for c where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct State<Buffer> {
    /// Hidden states, each of the spec's state size.
    pub h: Buffer,
    /// Cell states, each of the hidden size, for a cell that has them.
    pub c: Option<Buffer>,
}

impl<Buffer> State<Buffer> {
    /// The same states, to be changed in place.
    #[inline]
    pub fn lent<S: ?Sized>(&mut self) -> State<&mut S>
    where
        Buffer: DerefMut<Target = S>,
    {
        State { h: &mut self.h, c: self.c.as_deref_mut() }
    }
}

/// What training draws for the states of one direction of a layer, and nothing at inference.
#[derive(Debug)]
pub struct StateMasks<Scratch> {
    /// (B, state size): what the recurrent products read is h' times this, at all steps, if there
    /// is recurrent dropout.
    pub recurrent: Option<Scratch>,
    /// (items, state size): 1 where zoneout keeps the h before the step, else 0.
    pub kept_h: Option<Scratch>,
    /// (items, H): the same of c.
    pub kept_c: Option<Scratch>,
}

/// One layer's way forward.
#[derive(Debug)]
pub struct Forward<'a, B: Backend + ?Sized> {
    /// Sizes of each direction.
    pub shape: &'a Shape,
    /// Which rows are live.
    pub steps: &'a Steps,
    /// The parameters, a direction each.
    pub weights: &'a [B::Weights],
    /// Inputs, I numbers each.
    pub x: Rows<'a, B::Slice>,
    /// What was drawn for the states, a direction each; empty where nothing was.
    pub masks: &'a [StateMasks<B::Scratch>],
    /// States of the whole stack.
    pub state: State<&'a mut B::Slice>,
    /// This layer's first slot in them.
    pub slot: usize,
    /// Outputs, D times the state size each.
    pub y: RowsMut<'a, B::Slice>,
    /// Where to keep what backward needs, a direction each; empty at inference.
    pub tape: &'a mut [B::Record],
}

/// One layer's way back.
#[derive(Debug)]
pub struct Backward<'a, B: Backend + ?Sized> {
    /// Sizes of each direction.
    pub shape: &'a Shape,
    /// Which rows are live.
    pub steps: &'a Steps,
    /// The parameters, a direction each.
    pub weights: &'a [B::Weights],
    /// Inputs of the way forward, packed.
    pub x: &'a B::Slice,
    /// Outputs of the way forward, packed.
    pub y: &'a B::Slice,
    /// What forward kept, a direction each.
    pub tape: &'a [B::Record],
    /// The masks that forward was given.
    pub masks: &'a [StateMasks<B::Scratch>],
    /// Gradients of the outputs, D times the state size each; none means zero.
    pub d_y: Option<Rows<'a, B::Slice>>,
    /// Gradients of the states of the whole stack.
    pub d_state: &'a mut State<B::Buffer>,
    /// This layer's first slot in them.
    pub slot: usize,
    /// Gradients of the parameters of this layer's directions, one after the other.
    pub d_parameters: &'a mut B::Slice,
    /// Where this layer's parameters begin in them.
    pub d_start: usize,
    /// Gradients of the inputs, packed; none where nobody asks.
    pub d_x: Option<&'a mut B::Slice>,
}
