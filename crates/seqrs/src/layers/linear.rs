//! y = x W^T + b, for every row.

use once_cell::race::OnceBox;
use seqrs_core::{Error, interrupt, memory};
use seqrs_cpu::{Cpu, Packed};
use serde::{Deserialize, Serialize};

use crate::init;
use crate::layer::{Layer, LayerSpec, NamedParameter, check_count, check_len};
use crate::number::Number;
use crate::parameters::{Form, Parameters};
use crate::quantised::layer as small;
use crate::random::Stream;

/// What describes a linear layer.
///
/// ```
/// let layer = seqrs::Linear::new(256, 10).build::<f32>()?;
/// assert_eq!(layer.num_parameters(), 10 * 256 + 10);
/// # Ok::<(), seqrs::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Numbers in, I.
    pub in_features: usize,
    /// Numbers out, O.
    pub out_features: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Where the initial parameters come from.
    #[serde(default)]
    pub seed: u64,
}

impl Linear {
    /// `in_features` numbers in, `out_features` out, with a bias; seed 0.
    pub fn new(in_features: usize, out_features: usize) -> Self {
        Self { in_features, out_features, bias: true, seed: 0 }
    }

    /// Whether there is a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Where the initial parameters come from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The layer: weights Glorot uniform, bias 0.
    ///
    /// # Errors
    /// [`Error::Shape`] names the size that describes no layer; [`Error::OutOfMemory`].
    pub fn build<T: Number>(self) -> Result<Layer<T>, Error> {
        Layer::new(LayerSpec::Linear(self))
    }

    pub(crate) fn count(&self) -> Result<usize, Error> {
        let bias = if self.bias { self.out_features } else { 0 };
        check_count([("in_features", self.in_features), ("out_features", self.out_features)], bias)
    }

    pub(crate) fn parameters(&self) -> Vec<NamedParameter> {
        let weight: (_, &[usize]) = ("weight", &[self.out_features, self.in_features]);
        match self.bias {
            true => NamedParameter::list(&[weight, ("bias", &[self.out_features])]),
            false => NamedParameter::list(&[weight]),
        }
    }
}

/// The weights packed for the way forward, and, once asked for, for the way back.
#[derive(Debug)]
pub(crate) struct Packs<T> {
    forward: Packed<T>,
    backward: OnceBox<Packed<T>>,
}

/// A linear layer with its parameters.
#[derive(Clone, Debug)]
pub struct LinearLayer<T> {
    pub(crate) options: Linear,
    pub(crate) parameters: Parameters<T, Packs<T>>,
}

/// Products between two looks whether the caller wants to stop: about 50 ms of one core.
const PRODUCTS_PER_LOOK: usize = 1 << 30;

impl<T: Number> LinearLayer<T> {
    pub(crate) fn new(options: Linear) -> Result<Self, Error> {
        let mut numbers = memory::zeros("parameters", options.count()?)?;
        let Linear { in_features, out_features, seed, .. } = options;
        let weight = &mut numbers[..in_features * out_features];
        init::glorot(&mut Stream::new(seed, 0), in_features, out_features, weight)?;
        Ok(Self { options, parameters: Parameters::new(numbers) })
    }

    /// What describes it.
    pub fn options(&self) -> &Linear {
        &self.options
    }

    fn weight_and_bias<'a>(&self, numbers: &'a [T]) -> (&'a [T], Option<&'a [T]>) {
        let (weight, bias) = numbers.split_at(self.options.in_features * self.options.out_features);
        (weight, self.options.bias.then_some(bias))
    }

    fn packs(&self, cpu: &Cpu<T>) -> Result<Form<'_, Packs<T>>, Error> {
        self.parameters.packed(cpu.level(), |numbers| {
            let Linear { in_features, out_features, .. } = self.options;
            let forward = match self.parameters.tensors() {
                Some(tensors) => small::packed_linear(cpu.level(), tensors, &self.options)?,
                None => {
                    check_len(self.options.count()?, numbers.len())?;
                    let (weight, bias) = self.weight_and_bias(numbers);
                    cpu.pack(weight, bias, out_features, in_features)?
                }
            };
            Ok(Packs { forward, backward: OnceBox::new() })
        })
    }

    /// Rows between two looks whether the caller wants to stop. Cutting changes no bit:
    /// rows are independent, and sums over rows go on where they stopped.
    fn rows_per_look(&self) -> usize {
        let products = self.options.in_features * self.options.out_features;
        (PRODUCTS_PER_LOOK / products).max(64)
    }

    /// y (rows, O) of x (rows, I).
    pub(crate) fn forward(&self, cpu: &Cpu<T>, x: &[T]) -> Result<Vec<T>, Error> {
        let rows = x.len() / self.options.in_features;
        let mut y = memory::zeros("output of a linear layer", rows * self.options.out_features)?;
        self.forward_into(cpu, x, &mut y)?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), to where y belongs.
    pub(crate) fn forward_into(&self, cpu: &Cpu<T>, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let Linear { in_features, out_features, .. } = self.options;
        let packs = self.packs(cpu)?;
        let look = self.rows_per_look();
        for (x, y) in x.chunks(look * in_features).zip(y.chunks_mut(look * out_features)) {
            interrupt::check()?;
            cpu.product(x, &packs.forward, y)?;
        }
        Ok(())
    }

    /// Adds to the gradients of the parameters; gives that of x if asked.
    pub(crate) fn backward(
        &self,
        cpu: &Cpu<T>,
        x: &[T],
        d_y: &[T],
        d_numbers: &mut [T],
        want_d_x: bool,
    ) -> Result<Option<Vec<T>>, Error> {
        let Linear { in_features, out_features, bias, .. } = self.options;
        let look = self.rows_per_look();
        let (d_weight, d_bias) = d_numbers.split_at_mut(in_features * out_features);
        for (x, d_y) in x.chunks(look * in_features).zip(d_y.chunks(look * out_features)) {
            interrupt::check()?;
            let d_bias = bias.then_some(&mut *d_bias);
            cpu.add_outer(d_y, x, out_features, in_features, d_weight, d_bias)?;
        }
        if !want_d_x {
            return Ok(None);
        }
        let packs = self.packs(cpu)?;
        let packed = packs.backward.get_or_try_init(|| {
            let (weight, _) = self.weight_and_bias(self.parameters.numbers());
            cpu.pack_transposed(weight, out_features, in_features).map(Box::new)
        })?;
        let mut d_x = memory::zeros("gradient of a linear layer", x.len())?;
        for (d_x, d_y) in d_x.chunks_mut(look * in_features).zip(d_y.chunks(look * out_features)) {
            interrupt::check()?;
            cpu.product(d_y, packed, d_x)?;
        }
        Ok(Some(d_x))
    }
}
