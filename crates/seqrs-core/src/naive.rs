//! The plainest device: loops as in a textbook, one number at a time.
//!
//! It is the truth that kernels are tested against. Sums run in the order that
//! [`crate::backend`] promises, so a kernel with the same elementary functions must give
//! the same bits.

use std::marker::PhantomData;

use crate::Error;
use crate::backend::{Backend, Backward, Forward, State, StateMasks};
use crate::cell::{Bundle, Cell, MAX_BUNDLE};
use crate::layer_norm;
use crate::memory::zeros;
use crate::real::Real;
use crate::rows::Rows;
use crate::spec::Shape;
use crate::steps::{Direction, Steps};
use crate::tape::{DirectionTape, Normed};
use crate::with_cell;

/// A device that computes with one number of type `T` at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Naive<T>(PhantomData<T>);

/// The parameters of one direction as they came.
#[derive(Debug)]
pub struct Weights<T> {
    shape: Shape,
    numbers: Vec<T>,
}

impl<T: Real> Weights<T> {
    fn part(&self, range: &std::ops::Range<usize>) -> &[T] {
        &self.numbers[range.clone()]
    }

    /// What unit `j` has for itself.
    fn per_unit<C: Cell>(&self, j: usize) -> C::PerUnit<T> {
        let of_all = self.part(&self.shape.per_unit);
        bundle(|field| of_all[field * self.shape.hidden + j])
    }

    /// The bias of column `n`, zero without one.
    fn bias(&self, range: &Option<std::ops::Range<usize>>, n: usize) -> T {
        range.as_ref().map_or(T::zero(), |range| self.part(range)[n])
    }
}

impl<T: Real> Weights<T> {
    /// The gates of all units: sums that start from their biases or, with a norm, from 0, are
    /// normalised, and get the biases then.
    fn gates(
        &self,
        sum: impl Fn(usize, T) -> T,
        bias: &Option<std::ops::Range<usize>>,
        norm: Option<&std::ops::Range<usize>>,
        keep: &mut Option<&mut Normed<Vec<T>>>,
        item: usize,
    ) -> Vec<T> {
        let columns = 0..self.shape.gate_columns();
        let Some(gamma) = norm else {
            return columns.map(|n| sum(n, self.bias(bias, n))).collect();
        };
        let mut gates: Vec<T> = columns.clone().map(|n| sum(n, T::zero())).collect();
        let inverse = layer_norm::normalise(&mut gates);
        if let Some(keep) = keep {
            keep.hat[item * columns.end..][..columns.end].copy_from_slice(&gates);
            keep.inverse[item] = inverse;
        }
        let bias = bias.as_ref().map(|bias| self.part(bias));
        layer_norm::scale_and_shift(&mut gates, self.part(gamma), bias);
        gates
    }
}

/// start + sum of a[k] b[k], k ascending, each product rounded into the sum once.
fn chain<T: Real>(start: T, terms: impl IntoIterator<Item = (T, T)>) -> T {
    terms.into_iter().fold(start, |sum, (a, b)| a.mul_add(b, sum))
}

/// What the recurrent products see of the number at `at` of (B, state size), if that was drawn.
fn recurrent<T: Real>(masks: Option<&StateMasks<Vec<T>>>, at: usize) -> Option<T> {
    masks.and_then(|masks| masks.recurrent.as_ref()).map(|mask| mask[at])
}

/// The share of h at `at` of (items, state size) that stays as it was.
fn kept_h<T: Real>(masks: Option<&StateMasks<Vec<T>>>, at: usize, share: f64) -> T {
    let drawn = masks.and_then(|masks| masks.kept_h.as_ref());
    drawn.map_or(T::number(share), |kept| kept[at])
}

/// The share of c at `at` of (items, H) that does.
fn kept_c<T: Real>(masks: Option<&StateMasks<Vec<T>>>, at: usize, share: f64) -> T {
    let drawn = masks.and_then(|masks| masks.kept_c.as_ref());
    drawn.map_or(T::number(share), |kept| kept[at])
}

/// Of the old as much as is kept, the rest of the new.
fn mixed<T: Real>(kept: T, old: T, new: T) -> T {
    kept * old + (T::one() - kept) * new
}

/// A number times what may be there.
fn times<T: Real>(number: T, factor: Option<T>) -> T {
    factor.map_or(number, |factor| number * factor)
}

fn bundle<T: Real, V: Bundle<T>>(value: impl Fn(usize) -> T) -> V {
    let mut values = [T::zero(); MAX_BUNDLE];
    for (k, place) in values.iter_mut().enumerate().take(V::NAMES.len()) {
        *place = value(k);
    }
    V::from_array(values)
}

impl<T: Real> Backend for Naive<T> {
    type Elem = T;
    type Slice = [T];
    type Buffer = Vec<T>;
    type Scratch = Vec<T>;
    type Weights = Weights<T>;
    type Record = DirectionTape<Vec<T>>;

    fn zeros(&self, len: usize) -> Result<Vec<T>, Error> {
        zeros("buffer", len)
    }

    fn blank(&self, len: usize) -> Result<Vec<T>, Error> {
        self.zeros(len)
    }

    fn copy(&self, from: &[T]) -> Result<Vec<T>, Error> {
        Ok(from.to_vec())
    }

    fn pack_rows(&self, from: Rows<'_, [T]>, steps: &Steps, width: usize, to: &mut [T]) {
        steps.for_each(|item, t, b| {
            let start = from.place.offset(item, t, b);
            to[item * width..][..width].copy_from_slice(&from.data[start..start + width]);
        });
    }

    fn times(&self, a: &[T], b: &[T]) -> Result<Vec<T>, Error> {
        Ok(a.iter().zip(b).map(|(&a, &b)| a * b).collect())
    }

    fn weights(&self, shape: &Shape, parameters: &[T]) -> Result<Weights<T>, Error> {
        Ok(Weights { shape: shape.clone(), numbers: parameters.to_vec() })
    }

    fn record(
        &self,
        shape: &Shape,
        items: usize,
        batch: usize,
    ) -> Result<DirectionTape<Vec<T>>, Error> {
        DirectionTape::blank(self, shape, items, batch)
    }

    fn forward(&self, mut run: Forward<'_, Self>) -> Result<(), Error> {
        for (d, &direction) in Direction::BOTH[..run.shape.directions].iter().enumerate() {
            with_cell!(run.shape.cell, C, cell => {
                forward_direction::<C, T>(cell, &mut run, d, direction);
            });
        }
        Ok(())
    }

    fn backward(&self, mut run: Backward<'_, Self>) -> Result<(), Error> {
        for (d, &direction) in Direction::BOTH[..run.shape.directions].iter().enumerate() {
            with_cell!(run.shape.cell, C, cell => {
                backward_direction::<C, T>(cell, &mut run, d, direction)?;
            });
        }
        Ok(())
    }
}

fn forward_direction<C: Cell, T: Real>(
    cell: C,
    run: &mut Forward<'_, Naive<T>>,
    d: usize,
    direction: Direction,
) {
    let Shape { hidden, state, input, .. } = *run.shape;
    let (batch, time) = (run.steps.batch(), run.steps.time());
    let w = &run.weights[d];
    let (w_ih, w_hh) = (w.part(&w.shape.weight_ih), w.part(&w.shape.weight_hh));
    let slot = (run.slot + d) * batch;
    let State { h, c } = &mut run.state;
    let h = &mut h[slot * state..(slot + batch) * state];
    let c = c.as_mut().map(|c| &mut c[slot * hidden..(slot + batch) * hidden]);
    let mut no_cells = Vec::new();
    let c = c.unwrap_or(&mut no_cells);
    let masks = run.masks.get(d);
    let (zoneout_h, zoneout_c) = (run.shape.zoneout_h, run.shape.zoneout_c);
    if let Some(tape) = run.tape.get_mut(d) {
        tape.h0.copy_from_slice(h);
        if let Some(c0) = &mut tape.c0 {
            c0.copy_from_slice(c);
        }
    }
    for k in 0..time {
        let t = direction.step(k, time);
        let (items, rows) = run.steps.at(t);
        for (item, &b) in items.zip(rows) {
            let b = b as usize;
            let x = &run.x.data[run.x.place.offset(item, t, b)..][..input];
            let h = &mut h[b * state..][..state];
            let before = h.to_vec();
            let mask = |j: usize| recurrent(masks, b * state + j);
            let seen: Vec<T> = (0..state).map(|j| times(before[j], mask(j))).collect();
            let norms = w.shape.norms.as_ref();
            let kept = run.tape.get_mut(d).and_then(|tape| tape.norms.as_mut());
            let (mut keep_ih, mut keep_hh) = match kept {
                None => (None, None),
                Some(kept) => (Some(&mut kept.ih), Some(&mut kept.hh)),
            };
            // The gates of all units, from x ...
            let gx = {
                let sum = |n: usize, bias| {
                    let row = &w_ih[n * input..][..input];
                    chain(bias, row.iter().copied().zip(x.iter().copied()))
                };
                w.gates(sum, &w.shape.bias_ih, norms.map(|norms| &norms.ih), &mut keep_ih, item)
            };
            // ... and from what a product reads of the state.
            let mut gates_from = |operand: &[T]| {
                let sum = |n: usize, bias| {
                    let row = &w_hh[n * state..][..state];
                    chain(bias, row.iter().copied().zip(operand.iter().copied()))
                };
                w.gates(sum, &w.shape.bias_hh, norms.map(|norms| &norms.hh), &mut keep_hh, item)
            };
            let gx = |gate: usize, j: usize| gx[gate * hidden + j];
            let early = gates_from(&seen);
            let s = |j: usize, c: &[T]| -> C::State<T> {
                bundle(|field| match field {
                    0 => before.get(j).copied().unwrap_or(T::zero()),
                    _ => c[b * hidden + j],
                })
            };
            let mut operand = seen.clone();
            let mut opened = Vec::new();
            if C::FIRST_GATES < C::GATES {
                for j in 0..hidden {
                    let gates_x = bundle(|gate| gx(gate, j));
                    let gates_h = bundle(|gate| match gate < C::FIRST_GATES {
                        true => early[gate * hidden + j],
                        false => T::zero(),
                    });
                    let (value, open) = cell.open::<T>(gates_x, gates_h, s(j, c));
                    operand[j] = times(value, mask(j));
                    opened.push(open);
                }
            }
            let late = if C::TWO_PRODUCTS { gates_from(&operand) } else { Vec::new() };
            let mut m = vec![T::zero(); hidden];
            let (mut steps_saved, mut stepped_c) = (Vec::new(), Vec::new());
            for j in 0..hidden {
                let gates_x = bundle(|gate| gx(gate, j));
                let gates_h = bundle(|gate| match gate < C::FIRST_GATES {
                    true => early[gate * hidden + j],
                    false => late[gate * hidden + j],
                });
                let open = opened.get(j).copied().unwrap_or(C::Opened::filled(T::zero()));
                let (s_new, saved) =
                    cell.forward::<T>(gates_x, gates_h, s(j, c), open, w.per_unit::<C>(j));
                let s_new = s_new.to_array(T::zero());
                m[j] = s_new[0];
                steps_saved.push(saved);
                stepped_c.push(s_new[1]);
                let mut mixed_c = s_new[1];
                if C::STATES > 1 {
                    let c = &mut c[b * hidden + j];
                    if zoneout_c > 0.0 {
                        let kept = kept_c(masks, item * hidden + j, zoneout_c);
                        mixed_c = mixed(kept, *c, s_new[1]);
                    }
                    *c = mixed_c;
                }
                if let Some(tape) = run.tape.get_mut(d) {
                    let saved = saved.to_array(T::zero());
                    for (field, value) in saved.into_iter().enumerate().take(C::SAVED) {
                        tape.saved[(item * C::SAVED + field) * hidden + j] = value;
                    }
                    if let Some(cells) = &mut tape.c {
                        cells[item * hidden + j] = mixed_c;
                    }
                    if let Some(stepped) = &mut tape.stepped_c {
                        stepped[item * hidden + j] = s_new[1];
                    }
                }
            }
            if let Some([gamma, beta]) = norms.and_then(|norms| norms.c.as_ref()) {
                let inverse = layer_norm::normalise(&mut stepped_c);
                let kept = run.tape.get_mut(d).and_then(|tape| tape.norms.as_mut());
                if let Some(keep) = kept.and_then(|kept| kept.c.as_mut()) {
                    keep.hat[item * hidden..][..hidden].copy_from_slice(&stepped_c);
                    keep.inverse[item] = inverse;
                }
                let (gamma, beta) = (w.part(gamma), w.part(beta));
                layer_norm::scale_and_shift(&mut stepped_c, gamma, Some(beta));
                for (j, (&c, saved)) in stepped_c.iter().zip(steps_saved).enumerate() {
                    let shown = bundle(|field| if field == 0 { T::zero() } else { c });
                    m[j] = cell.unprojected::<T>(saved, shown);
                }
            }
            match &w.shape.weight_hr {
                None => h.copy_from_slice(&m),
                Some(range) => {
                    for (p, h) in h.iter_mut().enumerate() {
                        let row = &w.part(range)[p * hidden..][..hidden];
                        *h = chain(T::zero(), row.iter().copied().zip(m.iter().copied()));
                    }
                }
            }
            if zoneout_h > 0.0 {
                for j in 0..state {
                    let at = item * state + j;
                    let stepped = run.tape.get_mut(d).and_then(|tape| tape.stepped_h.as_mut());
                    if let Some(stepped) = stepped {
                        stepped[at] = h[j];
                    }
                    h[j] = mixed(kept_h(masks, at, zoneout_h), before[j], h[j]);
                }
            }
            let y = run.y.place.offset(item, t, b) + d * state;
            run.y.data[y..y + state].copy_from_slice(h);
        }
    }
}

fn backward_direction<C: Cell, T: Real>(
    cell: C,
    run: &mut Backward<'_, Naive<T>>,
    d: usize,
    direction: Direction,
) -> Result<(), Error> {
    let Shape { hidden, state, input, directions, .. } = *run.shape;
    let columns = C::GATES * hidden;
    let (batch, time, items) = (run.steps.batch(), run.steps.time(), run.steps.items());
    let w = &run.weights[d];
    let (w_ih, w_hh) = (w.part(&w.shape.weight_ih), w.part(&w.shape.weight_hh));
    let tape = &run.tape[d];
    let masks = run.masks.get(d);
    let (zoneout_h, zoneout_c) = (run.shape.zoneout_h, run.shape.zoneout_c);
    let previous = run.steps.previous(direction)?;
    let slot = (run.slot + d) * batch;

    // The state before an item: the initial one of its row, or that after another item.
    let h_before = |item: usize, j: usize| match (previous[item] as usize).checked_sub(batch) {
        None => tape.h0[previous[item] as usize * state + j],
        Some(at) => run.y[(at * directions + d) * state + j],
    };
    let c_before = |item: usize, j: usize| match (&tape.c0, &tape.c) {
        (Some(c0), Some(c)) => match (previous[item] as usize).checked_sub(batch) {
            None => c0[previous[item] as usize * hidden + j],
            Some(at) => c[at * hidden + j],
        },
        _ => T::zero(),
    };
    let s = |item: usize, j: usize| -> C::State<T> {
        bundle(|field| match field {
            0 if j < state => h_before(item, j),
            0 => T::zero(),
            _ => c_before(item, j),
        })
    };
    let saved = |item: usize, j: usize| -> C::Saved<T> {
        bundle(|field| tape.saved[(item * C::SAVED + field) * hidden + j])
    };

    let mut d_gx = vec![T::zero(); items * columns];
    let mut d_gh = vec![T::zero(); items * columns];
    let mut d_p = vec![T::zero(); items * C::PER_UNIT * hidden];
    let mut d_out = vec![T::zero(); items * state]; // gradient of h, before the projection
    let norms = w.shape.norms.as_ref().zip(tape.norms.as_ref());
    // With norms: the gradients of the gates after them, and those of the norms' own parameters.
    let mut d_after = vec![[T::zero(); 2]; if norms.is_some() { items * columns } else { 0 }];
    let mut d_norm = d_after.clone();
    let mut d_norm_c = vec![[T::zero(); 2]; if norms.is_some() { items * hidden } else { 0 }];
    // The c that h shows, after the norm.
    let shown_c = |item: usize| -> Option<Vec<T>> {
        let (ranges, kept) = norms?;
        let ([gamma, beta], kept) = (ranges.c.as_ref()?, kept.c.as_ref()?);
        let mut c = kept.hat[item * hidden..][..hidden].to_vec();
        layer_norm::scale_and_shift(&mut c, w.part(gamma), Some(w.part(beta)));
        Some(c)
    };
    // What the recurrent products saw of the operand at (row, j).
    let seen = |b: usize, j: usize, operand: T| times(operand, recurrent(masks, b * state + j));
    let mut row_of = vec![0; items];
    for k in (0..time).rev() {
        let t = direction.step(k, time);
        let (range, rows) = run.steps.at(t);
        for (item, &b) in range.zip(rows) {
            let b = b as usize;
            row_of[item] = b;
            let mut kept = vec![T::zero(); state]; // what goes to h' past the step
            for j in 0..state {
                let from_y = run.d_y.map_or(T::zero(), |d_y| {
                    d_y.data[d_y.place.offset(item, t, b) + d * state + j]
                });
                let d = from_y + run.d_state.h[(slot + b) * state + j];
                let at = item * state + j;
                d_out[at] = d;
                if zoneout_h > 0.0 {
                    let share = kept_h(masks, at, zoneout_h);
                    kept[j] = share * d;
                    d_out[at] = (T::one() - share) * d;
                }
            }
            let d_h = &d_out[item * state..][..state];
            let d_m: Vec<T> = match &w.shape.weight_hr {
                None => d_h.to_vec(),
                Some(range) => (0..hidden)
                    .map(|j| {
                        let column = w.part(range)[j..].iter().step_by(hidden).copied();
                        chain(T::zero(), d_h.iter().copied().zip(column))
                    })
                    .collect(),
            };
            let mut direct = vec![T::zero(); hidden]; // what reaches h' without a product
            let shown = shown_c(item);
            let mut through_norm = vec![T::zero(); hidden]; // what reaches c through it
            let mut of_shown = vec![C::Gates::filled(T::zero()); hidden];
            if let Some(shown) = &shown {
                let (ranges, kept) = norms.expect("there is a norm");
                let [gamma, _] = ranges.c.as_ref().expect("of c");
                let kept = kept.c.as_ref().expect("of c");
                for j in 0..hidden {
                    let c = bundle(|field| if field == 0 { T::zero() } else { shown[j] });
                    let (gates, d_c) = cell.unprojected_back::<T>(saved(item, j), c, d_m[j]);
                    (of_shown[j], through_norm[j]) = (gates, d_c);
                    d_norm_c[item * hidden + j][1] = d_c;
                }
                let mut d_gamma = vec![T::zero(); hidden];
                let hat = &kept.hat[item * hidden..][..hidden];
                let (inverse, gamma) = (kept.inverse[item], w.part(gamma));
                layer_norm::backward(&mut through_norm, hat, inverse, gamma, &mut d_gamma);
                for j in 0..hidden {
                    d_norm_c[item * hidden + j][0] = d_gamma[j];
                }
            }
            for j in 0..hidden {
                let h_new = |j: usize| match &tape.stepped_h {
                    Some(stepped) => stepped[item * state + j],
                    None => run.y[(item * directions + d) * state + j],
                };
                let cells = tape.stepped_c.as_ref().or(tape.c.as_ref());
                let s_new: C::State<T> = bundle(|field| match field {
                    0 if j < state => h_new(j),
                    0 => T::zero(),
                    _ => match &shown {
                        Some(shown) => shown[j],
                        None => cells.map_or(T::zero(), |c| c[item * hidden + j]),
                    },
                });
                let d_c = run.d_state.c.as_ref().map_or(T::zero(), |c| c[(slot + b) * hidden + j]);
                let kept_c = kept_c(masks, item * hidden + j, zoneout_c);
                let d_s: C::State<T> = bundle(|field| match field {
                    0 if shown.is_some() => T::zero(),
                    0 => d_m[j],
                    _ if zoneout_c > 0.0 => (T::one() - kept_c) * d_c + through_norm[j],
                    _ => d_c + through_norm[j],
                });
                let p = w.per_unit::<C>(j);
                let d = cell.backward::<T>(saved(item, j), s(item, j), s_new, p, d_s);
                let (gx, gh) = (d.d_gx.to_array(T::zero()), d.d_gh.to_array(T::zero()));
                let more = of_shown[j].to_array(T::zero());
                for gate in 0..C::GATES {
                    d_gx[item * columns + gate * hidden + j] = gx[gate] + more[gate];
                    d_gh[item * columns + gate * hidden + j] = gh[gate] + more[gate];
                }
                let of_unit = d.d_p.to_array(T::zero());
                for (field, value) in of_unit.into_iter().enumerate().take(C::PER_UNIT) {
                    d_p[(item * C::PER_UNIT + field) * hidden + j] = value;
                }
                let d_before = d.d_s.to_array(T::zero());
                direct[j] = d_before[0];
                if let Some(c) = &mut run.d_state.c {
                    c[(slot + b) * hidden + j] = match zoneout_c > 0.0 {
                        true => d_before[1] + kept_c * d_c,
                        false => d_before[1],
                    };
                }
            }
            let through = |d_gh: &[T], gates: std::ops::Range<usize>, j: usize, start: T| {
                let columns_range = gates.start * hidden..gates.end * hidden;
                let column = columns_range.clone().map(|n| w_hh[n * state + j]);
                chain(start, d_gh[columns_range].iter().copied().zip(column))
            };
            if C::FIRST_GATES < C::GATES {
                let late = d_gh[item * columns..][..columns].to_vec();
                for j in 0..hidden {
                    let d_operand = through(&late, C::FIRST_GATES..C::GATES, j, T::zero());
                    let d_operand = seen(b, j, d_operand);
                    let (gates, d_h) = cell.close::<T>(saved(item, j), s(item, j), d_operand);
                    let gates = gates.to_array(T::zero());
                    for gate in 0..C::FIRST_GATES {
                        let at = item * columns + gate * hidden + j;
                        d_gx[at] = d_gx[at] + gates[gate];
                        d_gh[at] = d_gh[at] + gates[gate];
                    }
                    direct[j] = direct[j] + d_h;
                }
            }
            if let Some((ranges, kept)) = norms {
                let sides = [(&mut d_gx, &ranges.ih, &kept.ih), (&mut d_gh, &ranges.hh, &kept.hh)];
                for (side, (d, gamma, kept)) in sides.into_iter().enumerate() {
                    let d = &mut d[item * columns..][..columns];
                    let mut d_gamma = vec![T::zero(); columns];
                    for (n, &d) in d.iter().enumerate() {
                        d_after[item * columns + n][side] = d;
                    }
                    let hat = &kept.hat[item * columns..][..columns];
                    let gamma = w.part(gamma);
                    layer_norm::backward(d, hat, kept.inverse[item], gamma, &mut d_gamma);
                    for (n, &d_gamma) in d_gamma.iter().enumerate() {
                        d_norm[item * columns + n][side] = d_gamma;
                    }
                }
            }
            let gates = &d_gh[item * columns..][..columns];
            for j in 0..state {
                let mut start = if state == hidden { direct[j] } else { T::zero() };
                if zoneout_h > 0.0 {
                    start = start + kept[j];
                }
                let d_h = &mut run.d_state.h[(slot + b) * state + j];
                *d_h = match recurrent(masks, b * state + j) {
                    None => through(gates, 0..C::FIRST_GATES, j, start),
                    mask => start + times(through(gates, 0..C::FIRST_GATES, j, T::zero()), mask),
                };
            }
        }
    }

    let d_parameters = &mut run.d_parameters[run.d_start + d * w.shape.len()..];
    // d_W[n, k] += sum over items of d_g[item, n] operand[item, k]
    for item in 0..items {
        for n in 0..columns {
            let (gx, gh) = (d_gx[item * columns + n], d_gh[item * columns + n]);
            for k in 0..input {
                let at = &mut d_parameters[w.shape.weight_ih.start + n * input + k];
                *at = gx.mul_add(run.x[item * input + k], *at);
            }
            for k in 0..state {
                let at = &mut d_parameters[w.shape.weight_hh.start + n * state + k];
                let operand = match n < C::FIRST_GATES * hidden {
                    true => seen(row_of[item], k, h_before(item, k)),
                    false => seen(row_of[item], k, cell.operand::<T>(saved(item, k), s(item, k))),
                };
                *at = gh.mul_add(operand, *at);
            }
            let [bx, bh] = d_after.get(item * columns + n).copied().unwrap_or([gx, gh]);
            for (bias, g) in [(&w.shape.bias_ih, bx), (&w.shape.bias_hh, bh)] {
                if let Some(bias) = bias {
                    let at = &mut d_parameters[bias.start + n];
                    *at = *at + g;
                }
            }
            if let Some(norms) = &w.shape.norms {
                let d = d_norm[item * columns + n];
                for (range, d) in [&norms.ih, &norms.hh].into_iter().zip(d) {
                    let at = &mut d_parameters[range.start + n];
                    *at = *at + d;
                }
            }
        }
        if let Some(ranges) = w.shape.norms.as_ref().and_then(|norms| norms.c.as_ref()) {
            for j in 0..hidden {
                for (range, d) in ranges.iter().zip(d_norm_c[item * hidden + j]) {
                    let at = &mut d_parameters[range.start + j];
                    *at = *at + d;
                }
            }
        }
        let of_units = &mut d_parameters[w.shape.per_unit.clone()];
        for (at, &d) in of_units.iter_mut().zip(&d_p[item * C::PER_UNIT * hidden..]) {
            *at = *at + d;
        }
        if let Some(range) = &w.shape.weight_hr {
            let shown = shown_c(item);
            for p in 0..state {
                for j in 0..hidden {
                    let cells = tape.stepped_c.as_ref().or(tape.c.as_ref());
                    let c = match &shown {
                        Some(shown) => shown[j],
                        None => cells.map_or(T::zero(), |c| c[item * hidden + j]),
                    };
                    let s_new = bundle(|field| if field == 0 { T::zero() } else { c });
                    let m = cell.unprojected::<T>(saved(item, j), s_new);
                    let at = &mut d_parameters[range.start + p * hidden + j];
                    *at = d_out[item * state + p].mul_add(m, *at);
                }
            }
        }
    }
    if let Some(d_x) = run.d_x.as_deref_mut() {
        for item in 0..items {
            for k in 0..input {
                let start = if d == 0 { T::zero() } else { d_x[item * input + k] };
                let column = (0..columns).map(|n| w_ih[n * input + k]);
                let gates = d_gx[item * columns..][..columns].iter().copied();
                d_x[item * input + k] = chain(start, gates.zip(column));
            }
        }
    }
    Ok(())
}
