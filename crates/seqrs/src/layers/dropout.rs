//! Dropout (Srivastava et al. 2014): training sets numbers to zero by chance and scales the
//! others up, so that the expected value stays; inference does nothing.
//!
//! Recurrent dropout and zoneout of the recurrent layers are drawn here too. What is drawn is a
//! function of the seed of the draw, the layer, the gap within the
//! layer, and the place (t B + b) F + feature of the number in the padded array. Threads,
//! lengths and packing have no part in it.

use seqrs_core::backend::StateMasks;
use seqrs_core::memory::Lent;
use seqrs_core::sequence::Masks;
use seqrs_core::spec::Spec;
use seqrs_core::{Error, Steps};
use seqrs_cpu::Cpu;
use serde::{Deserialize, Serialize};

use super::by_rows::by_rows;
use crate::layer::{Layer, LayerSpec};
use crate::number::Number;
use crate::random::Stream;
use crate::room::room;

/// A layer that drops out its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Share of the numbers that training sets to zero, in [0, 1).
    pub p: f64,
    /// Where draws come from, for callers that have no other seed.
    #[serde(default)]
    pub seed: u64,
}

impl Dropout {
    /// Drops the share `p`; seed 0.
    pub fn new(p: f64) -> Self {
        Self { p, seed: 0 }
    }

    /// Where draws come from, for callers that have no other seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`Error::Option`] if `p` is not in [0, 1).
    pub fn build<T: Number>(self) -> Result<Layer<T>, Error> {
        Layer::new(LayerSpec::Dropout(self))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match (0.0..1.0).contains(&self.p) {
            true => Ok(()),
            false => Err(Error::option("p", "a number in [0, 1)", self.p)),
        }
    }
}

/// For each packed row its place t B + b among the rows of the padded array.
pub(crate) enum Places {
    /// Row k is at place k.
    All(usize),
    Some(Vec<u64>),
}

impl Places {
    pub(crate) fn of_steps(steps: &Steps) -> Result<Self, Error> {
        if steps.is_dense() {
            return Ok(Self::All(steps.items()));
        }
        let mut places = room("dropout mask", steps.items())?;
        steps.for_each(|_, t, b| places.push((t * steps.batch() + b) as u64));
        Ok(Self::Some(places))
    }

    fn len(&self) -> usize {
        match self {
            Self::All(len) => *len,
            Self::Some(places) => places.len(),
        }
    }

    fn at(&self, row: usize) -> u64 {
        match self {
            Self::All(_) => row as u64,
            Self::Some(places) => places[row],
        }
    }
}

/// What a training step of a stack draws: a mask for the outputs of each layer but the last, and
/// what is hidden and kept of the states of each. `dropout` is the seed of the draw and the number
/// of the stack among a model's layers; without it nothing is drawn.
pub(crate) fn masks<T: Number>(
    cpu: &Cpu<T>,
    stack: &Spec,
    steps: &Steps,
    dropout: Option<(u64, usize)>,
) -> Result<Masks<Lent<T>>, Error> {
    let Some((draw, layer)) = dropout else { return Ok(Masks::default()) };
    let options = stack.options();
    let mut masks = Masks::default();
    if options.dropout > 0.0 {
        let places = Places::of_steps(steps)?;
        for gap in 0..stack.num_layers() - 1 {
            let (p, width) = (options.dropout, stack.output_size());
            masks.between.push(mask(cpu, draw, (layer, gap), p, &places, width)?);
        }
    }
    if stack.shape(0).masks_states() {
        let items = Places::of_steps(steps)?;
        for k in 0..stack.num_layers() {
            let slots = k * stack.directions().len()..(k + 1) * stack.directions().len();
            let direction = |slot| of_states(cpu, stack, steps.batch(), &items, draw, layer, slot);
            masks.states.push(slots.map(direction).collect::<Result<_, _>>()?);
        }
    }
    Ok(masks)
}

/// Streams of a layer from here on are those of states; before them are those of the gaps.
const OF_STATES: usize = 1 << 16;

/// What is drawn for the states of one direction of a layer.
fn of_states<T: Number>(
    cpu: &Cpu<T>,
    stack: &Spec,
    batch: usize,
    items: &Places,
    draw: u64,
    layer: usize,
    slot: usize,
) -> Result<StateMasks<Lent<T>>, Error> {
    let options = stack.options();
    let (state, hidden) = (stack.state_size(), options.hidden_size);
    let stream = |k: usize| (layer, OF_STATES + 4 * slot + k);
    let kept = |share: f64, k: usize, width: usize| {
        let values = (T::from_f64(1.0), T::from_f64(0.0));
        (share > 0.0).then(|| drawn(cpu, draw, stream(k), share, values, items, width)).transpose()
    };
    let p = options.recurrent_dropout;
    let rows = Places::All(batch);
    Ok(StateMasks {
        recurrent: (p > 0.0).then(|| mask(cpu, draw, stream(0), p, &rows, state)).transpose()?,
        kept_h: kept(options.zoneout, 1, state)?,
        kept_c: kept(options.zoneout_cell, 2, hidden)?,
    })
}

/// 0 with probability `p`, else 1 / (1 - p), for every number of the packed rows.
pub(crate) fn mask<T: Number>(
    cpu: &Cpu<T>,
    draw: u64,
    (layer, gap): (usize, usize),
    p: f64,
    places: &Places,
    width: usize,
) -> Result<Lent<T>, Error> {
    let values = (T::from_f64(0.0), T::from_f64(1.0 / (1.0 - p)));
    drawn(cpu, draw, (layer, gap), p, values, places, width)
}

/// The first value with probability `p`, else the second.
fn drawn<T: Number>(
    cpu: &Cpu<T>,
    draw: u64,
    (layer, gap): (usize, usize),
    p: f64,
    (yes, no): (T, T),
    places: &Places,
    width: usize,
) -> Result<Lent<T>, Error> {
    let mut mask = Lent::new("dropout mask", places.len() * width)?;
    // A word is below the threshold with probability p, to within 2^-32.
    let threshold = (p * 4_294_967_296.0) as u32;
    let start = Stream::new(draw, (layer as u64) << 32 | gap as u64);
    by_rows(cpu, places.len(), width, [(&mut mask, width)], |rows, [mask]| {
        let mut stream = start.clone();
        let mut next = 0;
        for (row, mask) in rows.zip(mask.chunks_exact_mut(width)) {
            let place = places.at(row) * width as u64;
            if place != next {
                stream.seek(place);
            }
            next = place + width as u64;
            for number in mask {
                *number = match stream.word() < threshold {
                    true => yes,
                    false => no,
                };
            }
        }
    })?;
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use seqrs_cpu::level::Level;

    use super::*;

    fn cpu(threads: usize) -> Cpu<f32> {
        Cpu::with(Level::detect(), threads)
    }

    #[test]
    fn a_mask_does_not_depend_on_packing_or_threads() {
        let (time, batch, width) = (40, 25, 37);
        let dense = Places::of_steps(&Steps::dense(time, batch).unwrap()).unwrap();
        let whole = mask(&cpu(1), 5, (2, 1), 0.3, &dense, width).unwrap();
        assert_eq!(*whole, *mask(&cpu(4), 5, (2, 1), 0.3, &dense, width).unwrap());

        let steps = Steps::from_mask(time, batch, |t, b| (t * 7 + b * 3) % 5 > 1).unwrap();
        let places = Places::of_steps(&steps).unwrap();
        let packed = mask(&cpu(3), 5, (2, 1), 0.3, &places, width).unwrap();
        let mut expected = Vec::new();
        steps.for_each(|_, t, b| {
            expected.extend_from_slice(&whole[(t * batch + b) * width..][..width]);
        });
        assert_eq!(*packed, expected);
    }

    #[test]
    fn the_share_is_p_and_the_mean_is_kept() {
        for p in [0.0, 0.2, 0.5, 0.99] {
            let mask = mask(&cpu(1), 1, (0, 0), p, &Places::All(2000), 50).unwrap();
            let dropped = mask.iter().filter(|&&m| m == 0.0).count() as f64 / 1e5;
            assert!((dropped - p).abs() < 0.01, "{p} {dropped}");
            assert!(mask.iter().all(|&m| m == 0.0 || m == (1.0 / (1.0 - p)) as f32));
        }
    }

    #[test]
    fn draws_layers_and_gaps_have_masks_of_their_own() {
        let of =
            |draw, layer, gap| mask(&cpu(1), draw, (layer, gap), 0.5, &Places::All(1), 64).unwrap();
        let first = of(0, 0, 0);
        assert!([of(1, 0, 0), of(0, 1, 0), of(0, 0, 1)].iter().all(|mask| **mask != *first));
        assert_eq!(*first, *of(0, 0, 0));
    }
}
