//! Initial values of parameters, drawn in f64 and rounded to the type of the layer: an f32
//! and an f64 layer with one seed start from the same numbers.

use std::ops::Range;
use std::sync::OnceLock;

use seqrs_core::memory::zeros;
use seqrs_core::spec::{Role, Spec};
use seqrs_core::{Error, interrupt};
use seqrs_cpu::lanes::Simd;
use seqrs_cpu::level::{Kernel, Level};
use seqrs_cpu::team;

use crate::layers::by_rows::dot;
use crate::number::Number;
use crate::pace::NUMBERS_PER_LOOK;
use crate::random::Stream;

/// Uniform in [-a, a) with a = sqrt(6 / (fan in + fan out)) (Glorot and Bengio 2010).
pub(crate) fn glorot<T: Number>(
    stream: &mut Stream,
    fan_in: usize,
    fan_out: usize,
    numbers: &mut [T],
) -> Result<(), Error> {
    let a = (6.0 / (fan_in as f64 + fan_out as f64)).sqrt();
    fill(numbers, || a * (2.0 * stream.uniform() - 1.0))
}

/// Normal with mean 0 and deviation 1.
pub(crate) fn normal<T: Number>(stream: &mut Stream, numbers: &mut [T]) -> Result<(), Error> {
    fill(numbers, || stream.normal())
}

/// One number after the other, until the caller wants to stop.
fn fill<T: Number>(numbers: &mut [T], mut draw: impl FnMut() -> f64) -> Result<(), Error> {
    for numbers in numbers.chunks_mut(NUMBERS_PER_LOOK) {
        interrupt::check()?;
        numbers.iter_mut().for_each(|number| *number = T::from_f64(draw()));
    }
    Ok(())
}

/// The parameters of a recurrent layer: for each gate `weight_ih` Glorot uniform (fan in I,
/// fan out H) and `weight_hh` orthogonal (Saxe et al. 2014), `weight_hr` Glorot uniform,
/// norms 1, biases 0, but `forget_bias` in the forget gate's part of an LSTM's `bias_ih` (minus it in the
/// input gate's, where f = 1 - i). What each unit has
/// for itself, the peepholes of an LSTM, is Glorot uniform with both fans H, as Keras draws them
/// (PeepholeLSTMCell); PyTorch has none.
pub(crate) fn recurrent<T: Number>(
    spec: &Spec,
    seed: u64,
    forget_bias: f64,
) -> Result<Vec<T>, Error> {
    let mut numbers = zeros("parameters", spec.len())?;
    let hidden = spec.options().hidden_size;
    let mut orthogonal: Vec<(Stream, Range<usize>, usize)> = Vec::new();
    for (index, parameter) in spec.parameters().into_iter().enumerate() {
        let range = parameter.range;
        let columns = parameter.shape.last().copied().unwrap_or(1);
        // A stream for each gate of each parameter: there are at most four gates.
        let stream = |gate: usize| Stream::new(seed, (index * 4 + gate) as u64);
        let gates = range.clone().step_by(hidden * columns).enumerate();
        match parameter.role {
            Role::WeightIh => {
                for (gate, start) in gates {
                    let block = &mut numbers[start..start + hidden * columns];
                    glorot(&mut stream(gate), columns, hidden, block)?;
                }
            }
            Role::WeightHh => orthogonal
                .extend(gates.map(|(gate, at)| (stream(gate), at..at + hidden * columns, columns))),
            Role::WeightHr => {
                glorot(&mut stream(0), columns, parameter.shape[0], &mut numbers[range])?;
            }
            Role::PerUnit => glorot(&mut stream(0), hidden, hidden, &mut numbers[range])?,
            Role::BiasIh => {
                if let Some((gate, sign)) = spec.cell().forgetting() {
                    let from = range.start + gate * hidden;
                    numbers[from..from + hidden].fill(T::from_f64(sign * forget_bias));
                }
            }
            Role::Norm => numbers[range].fill(T::from_f64(1.0)),
            Role::BiasHh | Role::NormBias => {}
        }
    }
    orthogonal_blocks(orthogonal, &mut numbers)?;
    Ok(numbers)
}

/// Fills each block, columns of the given number wide, with an orthogonal matrix of its own
/// stream. The blocks ascend.
fn orthogonal_blocks<T: Number>(
    blocks: Vec<(Stream, Range<usize>, usize)>,
    numbers: &mut [T],
) -> Result<(), Error> {
    // Orthogonalising smaller blocks takes less time than waking a thread.
    const ALONE: usize = 64 * 64;
    let parts = match blocks.iter().any(|(_, range, _)| range.len() > ALONE) {
        true => team::num_threads()?,
        false => 1,
    };
    let mut jobs = Vec::with_capacity(blocks.len());
    let (mut rest, mut taken) = (numbers, 0);
    for (stream, range, columns) in blocks {
        let (block, tail) =
            std::mem::take(&mut rest)[range.start - taken..].split_at_mut(range.len());
        (rest, taken) = (tail, range.end);
        jobs.push((stream, block, columns));
    }
    let mut shares: Vec<Vec<_>> = (0..parts.min(jobs.len())).map(|_| Vec::new()).collect();
    for (k, job) in jobs.into_iter().enumerate() {
        let share = k % shares.len();
        shares[share].push(job);
    }
    // Only the calling thread knows whether to stop, and tells the others.
    let failed = &OnceLock::new();
    let tasks = shares.into_iter().map(|share| {
        move || {
            for (mut stream, block, columns) in share {
                if let Err(error) = orthogonal(&mut stream, block, columns, failed) {
                    // If two fail, one of the errors is as good as the other.
                    let _ = failed.set(error);
                    return;
                }
            }
        }
    });
    team::run(tasks.collect());
    failed.get().map_or(Ok(()), |error| Err(error.clone()))
}

/// Fills `block` with a matrix, `columns` wide, that has orthonormal rows, or columns if there
/// are more rows: the Q of the QR decomposition of a matrix of normal numbers with the diagonal
/// of R positive, hence uniform among all such (Mezzadri 2007). Ends early once another has
/// `failed`.
fn orthogonal<T: Number>(
    stream: &mut Stream,
    block: &mut [T],
    columns: usize,
    failed: &OnceLock<Error>,
) -> Result<(), Error> {
    let rows = block.len() / columns;
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors = zeros("orthogonal parameters", count * length)?;
    normal(stream, &mut vectors)?;
    for start in (0..vectors.len()).step_by(PANEL * length) {
        interrupt::check()?;
        if failed.get().is_some() {
            return Ok(());
        }
        let (before, panel) = vectors.split_at_mut(start);
        let end = panel.len().min(PANEL * length);
        let panel = &mut panel[..end];
        Level::detect().dispatch(GramSchmidt { before, panel, length });
    }
    for (at, number) in block.iter_mut().enumerate() {
        let at = if rows <= columns { at } else { at % columns * length + at / columns };
        *number = T::from_f64(vectors[at]);
    }
    Ok(())
}

/// Makes the vectors of a panel, of `length` numbers each, orthonormal among themselves and to
/// those before, which are so already: of each stays what is left of it beside those before it
/// (the modified Gram-Schmidt process).
///
/// It runs at whatever level the processor has, and its bits do not depend on which: each
/// operation is rounded by itself, and the order of sums is fixed.
struct GramSchmidt<'a> {
    before: &'a [f64],
    panel: &'a mut [f64],
    length: usize,
}

/// Vectors that go past those before them together, to stay in the cache meanwhile.
const PANEL: usize = 16;

impl Kernel<f64> for GramSchmidt<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = f64>>(self) {
        let Self { before, panel, length } = self;
        for q in before.chunks_exact(length) {
            for v in panel.chunks_exact_mut(length) {
                remove(q, v);
            }
        }
        for k in 0..panel.len() / length {
            let (before_in_panel, v) = panel.split_at_mut(k * length);
            let v = &mut v[..length];
            for q in before_in_panel.chunks_exact(length) {
                remove(q, v);
            }
            // Where almost nothing is left of a vector (its squared length was about
            // `length`), what is left is mostly rounding, and not orthogonal yet.
            if dot(v, v) < 1e-6 * length as f64 {
                for q in before.chunks_exact(length) {
                    remove(q, v);
                }
                for q in before_in_panel.chunks_exact(length) {
                    remove(q, v);
                }
            }
            let norm = dot(v, v).sqrt();
            for x in v {
                *x /= norm;
            }
        }
    }
}

/// Takes from `v` its part along `q`, which has length 1.
#[inline(always)]
fn remove(q: &[f64], v: &mut [f64]) {
    let along = dot(q, v);
    for (v, q) in v.iter_mut().zip(q) {
        *v -= along * q;
    }
}

#[cfg(test)]
mod tests {
    use seqrs_core::cell::CellKind;
    use seqrs_core::spec::Options;

    use super::*;

    #[test]
    fn orthogonal_matrices_are_orthogonal_in_their_shorter_dimension() {
        for (rows, columns) in [(1, 1), (5, 5), (64, 64), (100, 100), (20, 7), (7, 20)] {
            let mut m = vec![0.0; rows * columns];
            orthogonal(&mut Stream::new(3, 1), &mut m, columns, &OnceLock::new()).unwrap();
            let (count, length) = (rows.min(columns), rows.max(columns));
            let at = |vector: usize, k: usize| match rows <= columns {
                true => m[vector * columns + k],
                false => m[k * columns + vector],
            };
            for a in 0..count {
                for b in 0..=a {
                    let dot: f64 = (0..length).map(|k| at(a, k) * at(b, k)).sum();
                    let expected = f64::from(u8::from(a == b));
                    assert!((dot - expected).abs() < 1e-12, "{rows}x{columns}: {a} {b} {dot}");
                }
            }
        }
    }

    #[test]
    fn gates_of_a_recurrent_layer_start_as_documented() {
        for cell in [CellKind::LstmPeephole, CellKind::LstmCoupled] {
            let mut options = Options::new(cell, 30, 40);
            (options.num_layers, options.bidirectional, options.proj_size) = (2, true, 10);
            options.layer_norm = cell.may_be_normalised();
            starts_as_documented(&Spec::new(options).unwrap());
        }
    }

    fn starts_as_documented(spec: &Spec) {
        let numbers = recurrent::<f64>(spec, 5, 1.5).unwrap();
        for parameter in spec.parameters() {
            let part = &numbers[parameter.range.clone()];
            let largest = part.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
            match parameter.role {
                Role::WeightIh => {
                    let a = (6.0 / (parameter.shape[1] + 40) as f64).sqrt();
                    assert!(largest < a && largest > 0.97 * a);
                }
                Role::WeightHr => {
                    let a = (6.0 / 50_f64).sqrt();
                    assert!(largest < a && largest > 0.95 * a);
                }
                Role::WeightHh => part.chunks(40 * 10).for_each(|gate| {
                    let square: f64 = gate.iter().map(|x| x * x).sum();
                    assert!((square - 10.0).abs() < 1e-10);
                }),
                Role::BiasIh => {
                    // The forget gate's, or minus it the input gate's that is coupled with it.
                    let (from, start) =
                        if spec.cell().gates() == 4 { (40, 1.5) } else { (0, -1.5) };
                    let others = part[..from].iter().chain(&part[from + 40..]);
                    assert!(others.into_iter().all(|&x| x == 0.0));
                    assert!(part[from..from + 40].iter().all(|&x| x == start));
                }
                Role::Norm => assert!(part.iter().all(|&x| x == 1.0)),
                Role::BiasHh | Role::NormBias => assert_eq!(largest, 0.0),
                Role::PerUnit => {
                    let a = (6.0 / 80_f64).sqrt();
                    assert!(largest < a && largest > 0.8 * a);
                }
            }
        }
    }

    #[test]
    fn an_interrupt_stops_the_drawing() {
        let spec = Spec::new(Options::new(CellKind::Lstm, 5, 70)).unwrap();
        let drawn = interrupt::scope(|| true, || recurrent::<f64>(&spec, 9, 1.0));
        assert_eq!(drawn, Err(Error::Interrupted));
    }

    #[test]
    fn both_types_start_from_the_same_numbers() {
        let spec = Spec::new(Options::new(CellKind::GruResetAfter, 5, 70)).unwrap();
        let wide = recurrent::<f64>(&spec, 9, 1.0).unwrap();
        let narrow = recurrent::<f32>(&spec, 9, 1.0).unwrap();
        assert!(wide.iter().zip(&narrow).all(|(&w, &n)| w as f32 == n));
        assert_ne!(wide, recurrent::<f64>(&spec, 10, 1.0).unwrap());
    }
}
