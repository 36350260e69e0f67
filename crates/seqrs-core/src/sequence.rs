//! The driver: a stack of layers over a batch of sequences, forwards and back.
//!
//! It names no cell and knows no length; the backend runs one layer at a time, and
//! [`Steps`] says which rows are live.
//!
//! The way back is back-propagation through time over all steps: with the loss
//! `L = sum over t of L<t>`,
//! ```text
//! dL/dW_aa = sum over t and k <= t of
//!            dL<t>/dy^<t> . dy^<t>/da<t> . (prod over j = k+1 .. t of da<j>/da<j-1>) . da<k>/dW_aa
//! ```
//! and the same for every other parameter, the inputs and the initial state. Summed from the
//! last step to the first, that is one product with `da<j>/da<j-1>` a step:
//! ```text
//! d<t> = dL<t>/da<t> + d<t+1> . da<t+1>/da<t>        dL/dW = sum over t of d<t> . da<t>/dW
//! ```

use crate::backend::{Backend, Backward, Forward, State, StateMasks};
use crate::error::Error;
use crate::rows::{Place, Rows, RowsMut};
use crate::spec::Spec;
use crate::steps::Steps;
use crate::tape::{Dropped, LayerTape, Tape};

/// The parameters of a stack of layers in the form a backend likes, by layer and direction.
pub type StackWeights<B> = Vec<Vec<<B as Backend>::Weights>>;

/// What a backend records of a stack of layers.
pub type BackendTape<B> = Tape<<B as Backend>::Scratch, <B as Backend>::Record>;

/// Inference: runs the layers over `x`, writes the outputs of live items to `y`, keeps
/// nothing. `state` goes from its initial to its final value.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
pub fn infer<B: Backend>(
    backend: &B,
    spec: &Spec,
    weights: &StackWeights<B>,
    x: Rows<'_, B::Slice>,
    steps: &Steps,
    mut state: State<&mut B::Slice>,
    y: RowsMut<'_, B::Slice>,
) -> Result<(), Error> {
    let last = spec.num_layers() - 1;
    let mut below: Option<B::Scratch> = None;
    for (layer, weights) in weights.iter().enumerate() {
        let mut above = match layer {
            l if l == last => None,
            _ => Some(backend.blank(steps.items() * spec.output_size())?),
        };
        let run = Forward {
            shape: &spec.shape(layer),
            steps,
            weights,
            x: match &below {
                None => x,
                Some(y) => Rows { data: &**y, place: Place::packed(spec.output_size()) },
            },
            masks: &[],
            state: state.lent(),
            slot: layer * spec.directions().len(),
            y: match &mut above {
                None => RowsMut { data: &mut *y.data, place: y.place },
                Some(y) => RowsMut { data: &mut **y, place: Place::packed(spec.output_size()) },
            },
            tape: &mut [],
        };
        backend.forward(run)?;
        below = above;
    }
    Ok(())
}

/// What training draws.
#[derive(Debug)]
pub struct Masks<Scratch> {
    /// What dropout multiplies the packed outputs of each layer but the last with; empty without.
    pub between: Vec<Scratch>,
    /// For the states of each layer, a direction each; empty where nothing is drawn for any.
    pub states: Vec<Vec<StateMasks<Scratch>>>,
}

impl<Scratch> Default for Masks<Scratch> {
    fn default() -> Self {
        Self { between: Vec::new(), states: Vec::new() }
    }
}

/// Training: as [`infer`], but keeps what [`backward`] needs; the outputs are in the tape.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
pub fn record<B: Backend>(
    backend: &B,
    spec: &Spec,
    weights: &StackWeights<B>,
    x: Rows<'_, B::Slice>,
    steps: Steps,
    state: &mut State<B::Buffer>,
    masks: Masks<B::Scratch>,
) -> Result<BackendTape<B>, Error> {
    let items = steps.items();
    let input = spec.options().input_size;
    let mut packed = backend.blank(items * input)?;
    backend.pack_rows(x, &steps, input, &mut packed);
    let mut tape = Tape { steps, x: packed, layers: Vec::with_capacity(spec.num_layers()) };
    let (mut between, mut states) = (masks.between.into_iter(), masks.states.into_iter());
    for (layer, weights) in weights.iter().enumerate() {
        let shape = spec.shape(layer);
        let mut y = backend.blank(items * spec.output_size())?;
        let mut directions = Vec::with_capacity(shape.directions);
        for _ in spec.directions() {
            directions.push(backend.record(&shape, items, tape.steps.batch())?);
        }
        let masks = states.next().unwrap_or_default();
        let run = Forward {
            shape: &shape,
            steps: &tape.steps,
            weights,
            masks: &masks,
            x: Rows { data: &**tape.input(layer), place: Place::packed(shape.input) },
            state: state.lent(),
            slot: layer * shape.directions,
            y: RowsMut { data: &mut *y, place: Place::packed(spec.output_size()) },
            tape: &mut directions,
        };
        backend.forward(run)?;
        let dropout = match between.next() {
            None => None,
            Some(mask) => Some(Dropped { y: backend.times(&y, &mask)?, mask }),
        };
        tape.layers.push(LayerTape { directions, y, dropout, masks });
    }
    Ok(tape)
}

/// Back-propagation through time over all steps and layers. `d_state` goes from the
/// gradients of the final to those of the initial states; those of the parameters are added
/// to `d_parameters` in the order of [`Spec::parameters`]. Gives the packed gradients of
/// the inputs if `want_d_x`.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::Interrupted`].
#[expect(clippy::too_many_arguments, reason = "each is a quantity of the algorithm")]
pub fn backward<B: Backend>(
    backend: &B,
    spec: &Spec,
    weights: &StackWeights<B>,
    tape: &BackendTape<B>,
    d_y: Option<Rows<'_, B::Slice>>,
    d_state: &mut State<B::Buffer>,
    d_parameters: &mut B::Slice,
    want_d_x: bool,
) -> Result<Option<B::Buffer>, Error> {
    let mut above: Option<B::Scratch> = None;
    for layer in (0..spec.num_layers()).rev() {
        let shape = spec.shape(layer);
        let record = &tape.layers[layer];
        let d_x_len = tape.steps.items() * shape.input;
        // That of the first layer is the caller's for good.
        let mut first = (layer == 0 && want_d_x).then(|| backend.zeros(d_x_len)).transpose()?;
        let mut below = (layer > 0).then(|| backend.blank(d_x_len)).transpose()?;
        let run = Backward {
            shape: &shape,
            steps: &tape.steps,
            weights: &weights[layer],
            x: &**tape.input(layer),
            y: &*record.y,
            tape: &record.directions,
            masks: &record.masks,
            d_y: match &above {
                Some(d) => Some(Rows { data: &**d, place: Place::packed(spec.output_size()) }),
                None => d_y,
            },
            d_state: &mut *d_state,
            slot: layer * shape.directions,
            d_parameters: &mut *d_parameters,
            d_start: spec.slot_range(layer, 0).start,
            d_x: first.as_deref_mut().or(below.as_deref_mut()),
        };
        backend.backward(run)?;
        if layer == 0 {
            return Ok(first);
        }
        if let (Some(d), Some(Dropped { mask, .. })) = (&below, &tape.layers[layer - 1].dropout) {
            below = Some(backend.times(d, mask)?);
        }
        above = below;
    }
    Ok(None)
}
