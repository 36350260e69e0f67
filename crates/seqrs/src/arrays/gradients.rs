//! Forward with a tape, and back.

use std::collections::BTreeMap;

use ndarray::{Array3, ArrayD, ArrayView1, ArrayViewD, IxDyn};
use seqrs_core::{Error, memory};
use seqrs_cpu::Cpu;

use super::inference::to_array;
use super::states::{self, States};
use super::{Batch, Layout, check_shape, copied, in_order, shaped};
use crate::layer::Layer;
use crate::model_tape::ModelTape;
use crate::number::Number;
use crate::sequential::{Rank, Sequential};

/// What [`Sequential::forward`] gives: the output, the final states, and the tape.
pub type Recorded<T> = (ArrayD<T>, States<T>, ModelTape<T>);

/// What [`Sequential::backward`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// That of the input, (B, T, I) or (T, B, I) as the input was, zero at steps that were
    /// not live; none for ids.
    pub x: Option<Array3<T>>,
    /// Those of the initial states.
    pub state: States<T>,
    /// Those of the parameters, by name (`{index}.{parameter}` in a model, as in
    /// [`Sequential::parameters`]) and of their shapes.
    pub params: BTreeMap<String, ArrayD<T>>,
}

impl<T: Number> Sequential<T> {
    /// As [`Sequential::infer`], and a tape for [`Sequential::backward`]. `dropout` is the
    /// seed of this draw of dropout masks; with none nothing is dropped, and the output has
    /// the bits of [`Sequential::infer`]. [`Sequential::draw`] gives the seed of Python's
    /// n-th call.
    ///
    /// ```
    /// use ndarray::Array3;
    /// use seqrs::{Batch, Lstm, Linear, Sequential};
    ///
    /// let model = Sequential::<f64>::new(vec![
    ///     Lstm::new(3, 8).build()?,
    ///     Linear::new(8, 2).build()?,
    /// ])?;
    /// let x = Array3::from_elem((4, 6, 3), 0.5);
    /// let (y, _state, tape) = model.forward(Batch::from(&x).lengths(&[6, 1, 0, 3]), None)?;
    /// // The gradient of half the sum of squares is y itself.
    /// let gradients = model.backward(&tape, Some(y.view()), None)?;
    /// assert_eq!(gradients.params["0.weight_hh_l0"].shape(), [4 * 8, 8]);
    /// assert_eq!(gradients.state[0].h.dim(), (1, 4, 8));
    /// assert_eq!(gradients.x.unwrap().dim(), x.dim());
    /// # Ok::<(), seqrs::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Sequential::infer`].
    pub fn forward<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
        dropout: Option<u64>,
    ) -> Result<Recorded<T>, Error> {
        let mut batch = batch.into().read(self)?;
        let mut state = std::mem::take(&mut batch.state);
        let (input, steps) = (batch.input(), batch.steps.clone());
        let tape = self.record_on(&Cpu::new()?, input, steps, &mut state, dropout)?;
        let output = tape.output();
        let packed = copied("output", &ArrayView1::from(output.numbers))?;
        let y = to_array(packed, output.rank, output.width, tape.steps(), batch.layout)?;
        Ok((y, states::to_arrays(self, state, batch.layout.batch), tape))
    }

    /// The gradients of the input, the initial states and every parameter, by
    /// back-propagation through all layers and steps. `d_y`, of the shape of the output, and
    /// `d_state` are those of the output and of the final states; none means zero, and at
    /// least one is given. What `d_y` holds at steps that are not live is not looked at.
    ///
    /// # Errors
    /// [`Error::State`] if the tape was recorded by another model, or before the parameters
    /// changed; [`Error::Shape`] if `d_y` or `d_state` has another shape than what it is the
    /// gradient of, or both are none; [`Error::OutOfMemory`], [`Error::Interrupted`].
    pub fn backward(
        &self,
        tape: &ModelTape<T>,
        d_y: Option<ArrayViewD<'_, T>>,
        d_state: Option<&States<T>>,
    ) -> Result<Gradients<T>, Error> {
        self.check_tape(tape)?;
        if d_y.is_none() && d_state.is_none() {
            return Err(Error::shape("d_y and d_state", "at least one of them", "neither"));
        }
        let steps = tape.steps();
        let layout =
            Layout { batch_first: self.batch_first(), time: steps.time(), batch: steps.batch() };
        let d_y = d_y.map(|d_y| packed(d_y, tape, layout)).transpose()?;
        let mut d_flat = match d_state {
            Some(d_state) => states::to_flat("d_state", self, d_state, layout.batch)?,
            None => self.zero_state(layout.batch)?,
        };
        let want_d_x = !self.takes_ids();
        let found = self.backward_on(&Cpu::new()?, tape, d_y.as_deref(), &mut d_flat, want_d_x)?;
        let width = tape.input_width();
        let (first, second) = layout.dims();
        let x = found.x.map(|x| layout.spread(x, steps, width)).transpose()?;
        let mut params = BTreeMap::new();
        for (k, (layer, numbers)) in self.layers().iter().zip(&found.layers).enumerate() {
            for parameter in layer.parameters() {
                let own = copied("gradients", &ArrayView1::from(&numbers[parameter.range]))?;
                let array = shaped(IxDyn(&parameter.shape), own);
                params.insert(format!("{k}.{}", parameter.name), array);
            }
        }
        Ok(Gradients {
            x: x.map(|x| shaped((first, second, width), x)),
            state: states::to_arrays(self, d_flat, layout.batch),
            params,
        })
    }
}

impl<T: Number> Layer<T> {
    /// Forward of this layer alone, as [`Sequential::forward`].
    ///
    /// # Errors
    /// As [`Sequential::forward`].
    pub fn forward<'a>(
        &self,
        batch: impl Into<Batch<'a, T>>,
        dropout: Option<u64>,
    ) -> Result<Recorded<T>, Error> {
        self.alone().forward(batch, dropout)
    }

    /// Back through this layer alone, as [`Sequential::backward`]; parameters have their
    /// own names, without an index.
    ///
    /// # Errors
    /// As [`Sequential::backward`].
    pub fn backward(
        &self,
        tape: &ModelTape<T>,
        d_y: Option<ArrayViewD<'_, T>>,
        d_state: Option<&States<T>>,
    ) -> Result<Gradients<T>, Error> {
        let found = self.alone().backward(tape, d_y, d_state)?;
        let own = |(name, array): (String, _)| (name["0.".len()..].to_string(), array);
        Ok(Gradients { params: found.params.into_iter().map(own).collect(), ..found })
    }
}

/// The rows of `d_y` that belong to an output, one after the other.
fn packed<T: Number>(
    d_y: ArrayViewD<'_, T>,
    tape: &ModelTape<T>,
    layout: Layout,
) -> Result<Vec<T>, Error> {
    let output = tape.output();
    let width = output.width;
    let (first, second) = layout.dims();
    match output.rank {
        Rank::Rows => {
            check_shape("d_y", d_y.shape(), &[layout.batch, width])?;
            copied("d_y", &d_y)
        }
        Rank::Steps => {
            check_shape("d_y", d_y.shape(), &[first, second, width])?;
            let given = in_order("d_y", &d_y)?;
            let mut rows = memory::zeros("d_y", output.numbers.len())?;
            let place = layout.place(width);
            tape.steps().for_each(|item, t, b| {
                let row = &given[place.offset(item, t, b)..][..width];
                rows[item * width..][..width].copy_from_slice(row);
            });
            Ok(rows)
        }
    }
}
