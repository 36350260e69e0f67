//! seqrs on the processor, in both precisions: a step in place, sequences with an output of
//! their own.

use seqrs::low_level::{Cpu, Input, ModelGradients, ModelState, Place, Rows, Steps};
use seqrs::{Error, Gru, Layer, Lstm, Number, Sequential};

use crate::case::{Case, Cell, Task};
use crate::contender::{Built, Contender, Failure, Results};
use crate::problem::{Problem, swapped};

/// The instruction set that is used.
pub(crate) fn level() -> Result<String, Error> {
    Ok(Cpu::<f32>::new()?.level().to_string())
}

struct Seqrs<T: Number> {
    case: Case,
    cpu: Cpu<T>,
    model: Sequential<T>,
    x: Vec<T>,
    /// The state that a step begins with.
    start: ModelState<T>,
    /// Steps first, as the output.
    d_y: Vec<T>,
    state: ModelState<T>,
    /// Steps first: (T, B, H).
    y: Vec<T>,
    gradients: Option<ModelGradients<T>>,
}

fn converted<T: Number>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&value| T::from_f64(value.into())).collect()
}

/// The layer, with the weights of the problem.
pub(super) fn layer<T: Number>(problem: &Problem) -> Result<Layer<T>, Error> {
    let Case { cell, size, .. } = problem.case;
    let mut layer: Layer<T> = match cell {
        Cell::Lstm => Lstm::new(size, size).build()?,
        Cell::Gru => Gru::new(size, size).reset_after(true).build()?,
        Cell::GruResetBefore => Gru::new(size, size).build()?,
    };
    let w = &problem.weights;
    // As many of them as the layer has.
    let parameters = [&w.weight_ih, &w.weight_hh, &w.bias_ih, &w.bias_hh].into_iter();
    let numbers = parameters.take(layer.parameters().len());
    layer.set_numbers(numbers.flat_map(|values| converted(values)).collect())?;
    Ok(layer)
}

/// Threads are those of the process.
pub(crate) fn build<T: Number>(problem: &Problem) -> Built {
    let case = problem.case;
    let Case { batch, size, .. } = case;
    let model = Sequential::from(layer(problem)?);
    let mut start = model.zero_state(batch)?;
    start[0].h = converted(&problem.h0);
    if let Some(c) = &mut start[0].c {
        *c = converted(&problem.c0);
    }
    Ok(Some(Box::new(Seqrs {
        case,
        cpu: Cpu::new()?,
        x: converted(&problem.x),
        d_y: converted(&swapped(&problem.d_y, case.time, size)),
        state: model.zero_state(batch)?,
        start,
        y: vec![T::from_f64(0.0); batch * size],
        gradients: None,
        model,
    })))
}

impl<T: Number> Seqrs<T> {
    fn input(&self) -> Input<'_, T> {
        let Case { time, size, .. } = self.case;
        Input::Numbers(Rows { data: &self.x, place: Place::batch_first(time, size) }, size)
    }

    fn step(&mut self) -> Result<(), Error> {
        let Layer::Recurrent(layer) = &self.model.layers()[0] else {
            unreachable!("the model is a recurrent layer");
        };
        let (start, state) = (&self.start[0], &mut self.state[0]);
        state.h.copy_from_slice(&start.h);
        if let (Some(to), Some(from)) = (&mut state.c, &start.c) {
            to.copy_from_slice(from);
        }
        layer.step_into(&self.cpu, &self.x, self.case.batch, state, &mut self.y)
    }

    fn infer(&mut self) -> Result<(), Error> {
        let Case { batch, time, .. } = self.case;
        let steps = Steps::dense(time, batch)?;
        let mut state = self.model.zero_state(batch)?;
        self.y = self.model.infer_on(&self.cpu, self.input(), &steps, &mut state)?.numbers;
        self.state = state;
        Ok(())
    }

    fn train(&mut self) -> Result<(), Error> {
        let Case { batch, time, .. } = self.case;
        let steps = Steps::dense(time, batch)?;
        let mut state = self.model.zero_state(batch)?;
        let tape = self.model.record_on(&self.cpu, self.input(), steps, &mut state, None)?;
        let mut d_state = self.model.zero_state(batch)?;
        let d_y = Some(&self.d_y[..]);
        self.gradients = Some(self.model.backward_on(&self.cpu, &tape, d_y, &mut d_state, true)?);
        Ok(())
    }
}

impl<T: Number> Contender for Seqrs<T> {
    fn run(&mut self) -> Result<(), Failure> {
        match self.case.task {
            Task::Step => self.step()?,
            Task::Infer => self.infer()?,
            Task::Train => self.train()?,
        }
        Ok(())
    }

    fn results(&self) -> Result<Results, Failure> {
        let Some(gradients) = &self.gradients else {
            return Ok(outputs(&self.case, &self.y, &self.state[0].h, self.state[0].c.as_deref()));
        };
        let d_x = gradients.x.as_deref().unwrap_or_default();
        Ok(gradients_of(&self.case, &self.model.layers()[0], &gradients.layers[0], d_x))
    }
}

fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| v.to_f64()).collect()
}

/// The results of inference; in `y` steps come first.
pub(super) fn outputs<T: Number>(case: &Case, y: &[T], h: &[T], c: Option<&[T]>) -> Results {
    let mut results = vec![("y", swapped(&wide(y), case.batch, case.size)), ("h", wide(h))];
    results.extend(c.map(|c| ("c", wide(c))));
    results
}

/// The results of training; in `d_x` steps come first.
pub(super) fn gradients_of<T: Number>(
    case: &Case,
    layer: &Layer<T>,
    d_parameters: &[T],
    d_x: &[T],
) -> Results {
    let mut results = vec![("d_x", swapped(&wide(d_x), case.batch, case.size))];
    let names = ["d_weight_ih", "d_weight_hh", "d_bias_ih", "d_bias_hh"];
    for (name, parameter) in names.into_iter().zip(layer.parameters()) {
        results.push((name, wide(&d_parameters[parameter.range])));
    }
    if case.cell == Cell::GruResetBefore {
        // The gradient of a second bias would be the same.
        results.extend(results.last().map(|(_, d_bias)| ("d_bias_hh", d_bias.clone())));
    }
    results
}
