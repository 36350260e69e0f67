//! States in a buffer that the thread keeps, for as long as a computation takes: what it changes
//! there is put in its place when it has succeeded.

use seqrs_core::Error;
use seqrs_core::backend::State;
use seqrs_core::memory::Lent;
use smallvec::SmallVec;

use crate::layer::Layer;
use crate::layers::recurrent::Recurrent;
use crate::number::Number;

/// The state of each recurrent layer, in order, to be changed in place.
pub type LentStates<'a, T> = SmallVec<[State<&'a mut [T]>; 8]>;

/// Numbers in h and in c, if there is one.
pub(crate) type Lens = State<usize>;

impl<T: Number> Recurrent<T> {
    /// Numbers in its state for `batch` rows.
    pub(crate) fn state_lens(&self, batch: usize) -> Lens {
        let stack = self.stack();
        let rows = stack.slots() * batch;
        let c = (stack.cell().states() > 1).then(|| rows * stack.options().hidden_size);
        State { h: rows * stack.state_size(), c }
    }
}

/// The recurrent layers, in order, with their places.
pub(crate) fn recurrent<T: Number>(
    layers: &[Layer<T>],
) -> impl Iterator<Item = (usize, &Recurrent<T>)> {
    layers.iter().enumerate().filter_map(|(k, layer)| match layer {
        Layer::Recurrent(layer) => Some((k, layer)),
        _ => None,
    })
}

/// Checks that there is a state for each recurrent layer.
///
/// # Errors
/// [`Error::State`].
pub(crate) fn check_count<T: Number, S>(
    layers: &[Layer<T>],
    states: &[State<S>],
) -> Result<(), Error> {
    let count = recurrent(layers).count();
    match states.len() == count {
        true => Ok(()),
        false => {
            let expected = format!("{count} (one for each recurrent layer)");
            Err(Error::state("states", expected, states.len()))
        }
    }
}

/// Room for the states of some layers.
pub(crate) struct StateRoom<T> {
    numbers: Lent<T>,
    lens: SmallVec<[Lens; 8]>,
}

impl<T: Number> StateRoom<T> {
    /// For the recurrent layers among these, whatever is in it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn new(layers: &[Layer<T>], batch: usize) -> Result<Self, Error> {
        Self::of(recurrent(layers).map(|(_, layer)| layer.state_lens(batch)))
    }

    /// Of these sizes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn of(lens: impl IntoIterator<Item = Lens>) -> Result<Self, Error> {
        let lens: SmallVec<[Lens; 8]> = lens.into_iter().collect();
        let sum = lens.iter().map(|lens| lens.h + lens.c.unwrap_or(0)).sum();
        Ok(Self { numbers: Lent::new("states", sum)?, lens })
    }

    /// The states, in order.
    pub(crate) fn lend(&mut self) -> LentStates<'_, T> {
        let mut rest = &mut self.numbers[..];
        let mut take = |len: usize| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            part
        };
        self.lens.iter().map(|lens| State { h: take(lens.h), c: lens.c.map(&mut take) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_lie_side_by_side() {
        let lens = [State { h: 2, c: Some(3) }, State { h: 1, c: None }];
        let mut room = StateRoom::<f32>::of(lens).unwrap();
        let mut states = room.lend();
        states[0].h.fill(1.0);
        states[0].c.as_mut().unwrap().fill(2.0);
        states[1].h.fill(3.0);
        drop(states);
        assert_eq!(room.numbers[..], [1.0, 1.0, 2.0, 2.0, 2.0, 3.0]);
    }
}
