//! The programs of one recurrent layer, for whoever has a device of their own.
//!
//! No device is opened here: what comes out is plain data, and buffers that are known by name are
//! filled and read by whoever runs it.

use std::sync::Arc;

use seqrs_core::Error;
use seqrs_core::backend::State;
use seqrs_core::rows::{Place, Rows, RowsMut};
use seqrs_core::sequence::{self, Masks};
use seqrs_core::spec::Spec;
use seqrs_core::steps::Steps;
use seqrs_gpu::program::{BufferId, Program};
use seqrs_gpu::{Numbers, Recorder};

use super::model::stack_weights;

/// A buffer that is known by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// `x`, `y`, `parameters`, `h`, `c`, or the gradient of one of them: `d_x` and so on.
    pub name: &'static str,
    /// In the programs.
    pub id: BufferId,
    /// Numbers in it, in f32.
    pub len: usize,
}

/// Forward and backward of a stack of layers over a batch of one shape.
///
/// Forward reads `x` and `parameters`, writes `y`, and takes `h` and `c` from the initial to the
/// final state. Backward, which follows it, reads `parameters` and `d_y`, writes `d_x`, adds to
/// `d_parameters`, and takes `d_h` and `d_c` from the final to the initial state. Where a row is
/// not live, `x` and `d_y` are not read and `y` and `d_x` not written.
///
/// A program may run any number of times, in the same buffers. All that it makes and does not
/// write as a whole has to be zero again before.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Those of forward, and with gradients those of backward.
    pub buffers: Vec<Named>,
    /// Makes its own buffers and the named ones.
    pub forward: Program,
    /// Makes its own and the gradients; reads what forward has left in its buffers.
    pub backward: Option<Program>,
}

impl Plan {
    /// For these steps. `place` says where a row of so many numbers lies in `x`, `y` and their
    /// gradients; there is a program back if `gradients` are wanted. No buffer is larger than
    /// `largest_buffer` bytes. Nothing is dropped between layers.
    ///
    /// # Errors
    /// [`Error::Shape`] if the batch does not fit in such buffers.
    pub fn new(
        stack: &Spec,
        steps: &Steps,
        place: impl Fn(usize) -> Place,
        gradients: bool,
        largest_buffer: u64,
    ) -> Result<Self, Error> {
        let rec = Recorder::with_largest_buffer(largest_buffer);
        let mut buffers = Vec::new();
        let mut named = |name: &'static str, rows: [usize; 2], width: usize| {
            let len: u128 = rows.iter().map(|&n| n as u128).product::<u128>() * width as u128;
            if 4 * len > u128::from(largest_buffer) {
                let most = largest_buffer / 4;
                let expected = format!("at most {most} numbers, which a buffer of the device has");
                return Err(Error::shape(name, expected, len));
            }
            let numbers = rec.zeros_of(len as usize);
            buffers.push(Named { name, id: numbers.id(), len: len as usize });
            Ok::<Box<Numbers>, Error>(numbers)
        };
        let (input, hidden) = (stack.options().input_size, stack.options().hidden_size);
        let (output, has_c) = (stack.output_size(), stack.cell().states() > 1);
        let rows = [steps.time(), steps.batch()];
        let slots = [stack.slots(), steps.batch()];

        let x = named("x", rows, input)?;
        let mut y = named("y", rows, output)?;
        let parameters: Arc<Numbers> = Arc::from(named("parameters", [1, 1], stack.len())?);
        let mut state = State {
            h: named("h", slots, stack.state_size())?,
            c: has_c.then(|| named("c", slots, hidden)).transpose()?,
        };
        let weights = stack_weights(stack, &parameters);
        let from = Rows { data: &*x, place: place(input) };
        if !gradients {
            let to = RowsMut { data: &mut *y, place: place(output) };
            sequence::infer(&rec, stack, &weights, from, steps, state.lent(), to)?;
            return Ok(Self { buffers, forward: rec.program(), backward: None });
        }
        let tape = sequence::record(
            &rec,
            stack,
            &weights,
            from,
            steps.clone(),
            &mut state,
            Masks::default(),
        )?;
        rec.unpack_rows(tape.y(), steps, output, &y, place(output));
        let forward = rec.program();

        let d_y = named("d_y", rows, output)?;
        let d_x = named("d_x", rows, input)?;
        let mut d_parameters = named("d_parameters", [1, 1], stack.len())?;
        let mut d_state = State {
            h: named("d_h", slots, stack.state_size())?,
            c: has_c.then(|| named("d_c", slots, hidden)).transpose()?,
        };
        let d_y = Rows { data: &*d_y, place: place(output) };
        let packed = sequence::backward(
            &rec,
            stack,
            &weights,
            &tape,
            Some(d_y),
            &mut d_state,
            &mut d_parameters,
            true,
        )?;
        let packed = packed.expect("it was asked for");
        rec.unpack_rows(&packed, steps, input, &d_x, place(input));
        Ok(Self { buffers, forward, backward: Some(rec.program()) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use seqrs_core::cell::CellKind;
    use seqrs_core::spec::Options;
    use seqrs_gpu::program::{Access, Command};

    use super::*;

    /// Every cell, and those that can be normalised so too.
    fn every_cell() -> Vec<Options> {
        let plain = |cell| Options { num_layers: 2, ..Options::new(cell, 3, 4) };
        let normalised = CellKind::ALL.into_iter().filter(|cell| cell.may_be_normalised());
        let normalised = normalised.map(|cell| Options { layer_norm: true, ..plain(cell) });
        CellKind::ALL.into_iter().map(plain).chain(normalised).collect()
    }

    fn plan(options: &Options, gradients: bool, largest: u64) -> Result<Plan, Error> {
        let spec = Spec::new(options.clone()).unwrap();
        let steps = Steps::from_lengths(5, &[5, 0, 2]).unwrap();
        Plan::new(&spec, &steps, |width| Place::batch_first(5, width), gradients, largest)
    }

    /// So that whoever runs a program again need not write them again.
    #[test]
    fn what_is_written_is_read_alone() {
        for cell in every_cell() {
            let plan = plan(&cell, true, 1 << 20).unwrap();
            for program in [&plan.forward, plan.backward.as_ref().unwrap()] {
                let (mut written, mut changed) = (HashSet::new(), HashSet::new());
                for command in &program.commands {
                    match command {
                        Command::Write { to, .. } => assert!(written.insert(*to)),
                        Command::Dispatch { pipeline, buffers, .. } => {
                            let bindings = &program.pipelines[*pipeline].bindings;
                            let bound = bindings.iter().zip(buffers);
                            let bound = bound.filter(|(each, _)| each.access == Access::Write);
                            changed.extend(bound.map(|(_, id)| *id));
                        }
                    }
                }
                assert!(!written.is_empty() && written.is_disjoint(&changed), "{cell:?}");
            }
        }
    }

    #[test]
    fn what_has_a_name_is_made_by_the_program_that_first_needs_it() {
        for cell in every_cell() {
            let plan = plan(&cell, true, 1 << 20).unwrap();
            let backward = plan.backward.unwrap();
            for Named { name, id, len } in plan.buffers {
                let program = if name.starts_with("d_") { &backward } else { &plan.forward };
                assert!(program.buffers.contains(&(id, 4 * len as u64)), "{cell:?} {name}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let lstm = Options { num_layers: 2, ..Options::new(CellKind::Lstm, 3, 4) };
        let message = plan(&lstm, false, 4 * 44).unwrap_err().to_string();
        let expected = "at most 44 numbers, which a buffer of the device has";
        assert_eq!(message, format!("x: expected {expected}, got 45"));
    }
}
