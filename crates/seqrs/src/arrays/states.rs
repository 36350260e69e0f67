//! The states of a model's recurrent layers, as arrays.

use ndarray::Array3;
use seqrs_core::Error;
use seqrs_core::backend::State;

use super::{check_shape, copied, shaped};
use crate::layer::Layer;
use crate::number::Number;
use crate::sequential::{ModelState, Sequential};
use crate::state_room::{check_count, recurrent};

/// The state of each recurrent layer of a model, in order: h (L D, B, H) and, for an LSTM,
/// c (L D, B, H). Slots go layer by layer, the forward direction first. With a projection
/// to P numbers h has P instead of H.
///
/// ```
/// use seqrs::{Linear, Lstm, Sequential};
///
/// let model = Sequential::<f32>::new(vec![
///     Lstm::new(8, 32).layers(2).build()?,
///     Linear::new(32, 3).build()?,
/// ])?;
/// let states = model.initial_state(4)?;
/// assert_eq!(states.len(), 1);
/// assert_eq!(states[0].h.dim(), (2, 4, 32));
/// assert!(states[0].c.is_some());
/// # Ok::<(), seqrs::Error>(())
/// ```
pub type States<T> = Vec<State<Array3<T>>>;

impl<T: Number> Sequential<T> {
    /// Zero states for `batch` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn initial_state(&self, batch: usize) -> Result<States<T>, Error> {
        Ok(to_arrays(self, self.zero_state(batch)?, batch))
    }
}

impl<T: Number> Layer<T> {
    /// Zero states for `batch` rows: one entry, or none if the layer has no state.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn initial_state(&self, batch: usize) -> Result<States<T>, Error> {
        self.alone().initial_state(batch)
    }
}

/// Compares states with those of `batch` rows of the layers. `name` is what a message calls them.
pub(super) fn check<T: Number>(
    name: &str,
    layers: &[Layer<T>],
    states: &States<T>,
    batch: usize,
) -> Result<(), Error> {
    check_count(layers, states)?;
    for ((k, layer), state) in recurrent(layers).zip(states) {
        let stack = layer.stack();
        let title = || format!("{name} of layer {k} ({})", layers[k].name());
        let check = |letter, got: &[usize], size| {
            let expected = [stack.slots(), batch, size];
            match got == expected {
                true => Ok(()),
                false => check_shape(&format!("{}: {letter}", title()), got, &expected),
            }
        };
        layer.check_parts(title, state)?;
        check("h", state.h.shape(), stack.state_size())?;
        if let Some(c) = &state.c {
            check("c", c.shape(), stack.options().hidden_size)?;
        }
    }
    Ok(())
}

/// The same states, flat. `name` is what a message calls them.
pub(super) fn to_flat<T: Number>(
    name: &str,
    model: &Sequential<T>,
    states: &States<T>,
    batch: usize,
) -> Result<ModelState<T>, Error> {
    check(name, model.layers(), states, batch)?;
    let flat = |state: &State<Array3<T>>| {
        let c = state.c.as_ref().map(|c| copied(name, &c.view())).transpose()?;
        Ok(State { h: copied(name, &state.h.view())?, c })
    };
    states.iter().map(flat).collect()
}

/// States of the model, as arrays.
pub(super) fn to_arrays<T: Number>(
    model: &Sequential<T>,
    states: ModelState<T>,
    batch: usize,
) -> States<T> {
    let arrays =
        |(state, (_, layer)): (State<Vec<T>>, (usize, &crate::layers::recurrent::Recurrent<T>))| {
            let stack = layer.stack();
            let array = |numbers, size| shaped((stack.slots(), batch, size), numbers);
            State {
                h: array(state.h, stack.state_size()),
                c: state.c.map(|c| array(c, stack.options().hidden_size)),
            }
        };
    states.into_iter().zip(model.recurrent()).map(arrays).collect()
}
