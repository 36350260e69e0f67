//! What a recurrent layer is: its cell, sizes, layers, directions.
//!
//! A [`Spec`] can only be built valid. It is also the one place that spells the names,
//! shapes and order of the parameters (PyTorch's).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cell::CellKind;
use crate::steps::Direction;

/// Layers that one stack may have: far more than any that trains, and few enough that the
/// names of all parameters are listed in no time.
pub const MAX_LAYERS: usize = 1000;

/// A recurrent layer without its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Options", into = "Options")]
pub struct Spec {
    options: Options,
}

/// The free choices of a recurrent layer; [`Spec::new`] says which go together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// RNN, LSTM or GRU, and which form of it.
    pub cell: CellKind,
    /// Numbers a step brings, I.
    pub input_size: usize,
    /// Units, H.
    pub hidden_size: usize,
    /// Layers on top of each other, L.
    pub num_layers: usize,
    /// Whether gates have biases.
    pub bias: bool,
    /// Whether each layer also has a direction that walks from the last step to the first.
    pub bidirectional: bool,
    /// Share of the outputs between two layers that training sets to zero, in [0, 1).
    pub dropout: f64,
    /// Size P of the projected hidden state of an LSTM (Sak et al. 2014), or 0 for none.
    pub proj_size: usize,
    /// Share of h' that the recurrent products of a training step do not see, the same units at
    /// all steps of a sequence (Gal and Ghahramani 2016), in [0, 1).
    pub recurrent_dropout: f64,
    /// Share of h that stays as it was before a step (zoneout: Krueger et al. 2017), in [0, 1):
    /// by chance in training, as the mean of both otherwise.
    pub zoneout: f64,
    /// The same of the cell state of an LSTM.
    pub zoneout_cell: f64,
    /// Whether gates and cell state are normalised ([`crate::layer_norm`]).
    pub layer_norm: bool,
}

impl Options {
    /// One forward layer with biases.
    pub fn new(cell: CellKind, input_size: usize, hidden_size: usize) -> Self {
        Self {
            cell,
            input_size,
            hidden_size,
            num_layers: 1,
            bias: true,
            bidirectional: false,
            dropout: 0.0,
            proj_size: 0,
            recurrent_dropout: 0.0,
            zoneout: 0.0,
            zoneout_cell: 0.0,
            layer_norm: false,
        }
    }
}

/// What a parameter does in its direction of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// (G H, I): what the input adds to the gates.
    WeightIh,
    /// (G H, H), or (G H, P) with a projection: what the hidden state adds to the gates.
    WeightHh,
    /// (G H): added to the input's part.
    BiasIh,
    /// (G H): added to the hidden state's part.
    BiasHh,
    /// (P, H): the projection.
    WeightHr,
    /// (G H) or (H): what a normalised row is multiplied with.
    Norm,
    /// (H): what is added to it.
    NormBias,
    /// (H): what each unit has for itself, such as a peephole.
    PerUnit,
}

/// One named parameter and its place among the numbers of its layer stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// PyTorch's name, such as `weight_ih_l0_reverse`.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Layer, from 0.
    pub layer: usize,
    /// Direction within the layer.
    pub direction: Direction,
    /// Rows, and columns where it is a matrix.
    pub shape: Vec<usize>,
    /// Where its numbers lie, row by row.
    pub range: Range<usize>,
}

/// The sizes of one direction of one layer, and where its parameters lie in the slice of
/// numbers that belongs to this direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Which cell.
    pub cell: CellKind,
    /// Numbers a step brings to this layer, I.
    pub input: usize,
    /// Units, H.
    pub hidden: usize,
    /// Size of the hidden state h: P with a projection, else H.
    pub state: usize,
    /// Directions of the layer, D.
    pub directions: usize,
    /// Share of h' that training hides from the recurrent products.
    pub recurrent_dropout: f64,
    /// Share of h that stays as it was before a step.
    pub zoneout_h: f64,
    /// Share of c that does.
    pub zoneout_c: f64,
    /// `weight_ih`, (G H, I).
    pub weight_ih: Range<usize>,
    /// `weight_hh`, (G H, state).
    pub weight_hh: Range<usize>,
    /// `bias_ih`, (G H).
    pub bias_ih: Option<Range<usize>>,
    /// `bias_hh`, (G H).
    pub bias_hh: Option<Range<usize>>,
    /// `weight_hr`, (P, H).
    pub weight_hr: Option<Range<usize>>,
    /// What the normalised rows are multiplied with and, for c, what is added.
    pub norms: Option<Norms>,
    /// What each unit has for itself, a run of H for each of [`CellKind::per_unit`].
    pub per_unit: Range<usize>,
}

/// The parameters of the normalisations of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// `norm_ih`, (G H): of x W_ih^T.
    pub ih: Range<usize>,
    /// `norm_hh`, (G H): of h' W_hh^T.
    pub hh: Range<usize>,
    /// `norm_c` and `norm_bias_c`, (H) each: of the cell state of an LSTM.
    pub c: Option<[Range<usize>; 2]>,
}

impl Shape {
    /// Gate columns, G H.
    #[inline]
    pub fn gate_columns(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Numbers in all parameters of this direction.
    pub fn len(&self) -> usize {
        self.per_unit.end
    }

    /// Never: there is at least one weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether anything is done to the states besides the cell.
    pub fn masks_states(&self) -> bool {
        self.recurrent_dropout > 0.0 || self.zoneout_h > 0.0 || self.zoneout_c > 0.0
    }
}

impl Spec {
    /// Checks that the options describe a layer.
    ///
    /// # Errors
    /// [`Error::Option`] names the first option that does not, [`Error::Shape`] sizes
    /// whose parameters no memory could hold.
    pub fn new(mut options: Options) -> Result<Self, Error> {
        if options.layer_norm {
            if !options.cell.may_be_normalised() {
                let expected =
                    "an LSTM without peepholes, or a GRU with reset_after, for layer_norm";
                return Err(Error::option("layer_norm", expected, "another cell"));
            }
            // Between a product and its cell there is a norm.
            options.cell = options.cell.unfused();
        }
        for (name, size) in [
            ("input_size", options.input_size),
            ("hidden_size", options.hidden_size),
            ("num_layers", options.num_layers),
        ] {
            if size == 0 {
                return Err(Error::shape(name, "an integer of at least 1", size));
            }
        }
        if options.num_layers > MAX_LAYERS {
            let expected = format!("an integer of at most {MAX_LAYERS}");
            return Err(Error::shape("num_layers", expected, options.num_layers));
        }
        for (name, share) in [
            ("dropout", options.dropout),
            ("recurrent_dropout", options.recurrent_dropout),
            ("zoneout", options.zoneout),
            ("zoneout_cell", options.zoneout_cell),
        ] {
            if !(0.0..1.0).contains(&share) {
                return Err(Error::option(name, "a number in [0, 1)", share));
            }
        }
        if options.zoneout_cell > 0.0 && options.cell.states() < 2 {
            let expected = "0 (only an LSTM has a cell state)";
            return Err(Error::option("zoneout_cell", expected, options.zoneout_cell));
        }
        if options.proj_size > 0 && options.cell.states() < 2 {
            return Err(Error::option(
                "proj_size",
                "0 (only an LSTM has a projection)",
                options.proj_size,
            ));
        }
        if options.proj_size >= options.hidden_size {
            return Err(Error::shape(
                "proj_size",
                format!("an integer in 0..{} (below hidden_size)", options.hidden_size),
                options.proj_size,
            ));
        }
        let spec = Self { options };
        match spec.parameter_bytes() {
            Some(bytes) if bytes <= isize::MAX as u128 => Ok(spec),
            _ => Err(Error::shape(
                "input_size, hidden_size and num_layers",
                "parameters that fit in memory",
                format!(
                    "{} x {} x {}",
                    spec.options.input_size, spec.options.hidden_size, spec.options.num_layers
                ),
            )),
        }
    }

    /// An upper bound for the bytes of all parameters as f64.
    fn parameter_bytes(&self) -> Option<u128> {
        let o = &self.options;
        let widest = (o.input_size as u128).max(o.hidden_size as u128 * 2);
        (o.hidden_size as u128)
            .checked_mul(widest + o.hidden_size as u128 * 2 + 7)?
            .checked_mul(8 * 4 * 2)?
            .checked_mul(o.num_layers as u128)
    }

    /// The choices this was built from.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Which cell.
    pub fn cell(&self) -> CellKind {
        self.options.cell
    }

    /// Layers, L.
    pub fn num_layers(&self) -> usize {
        self.options.num_layers
    }

    /// Directions of each layer, D.
    pub fn directions(&self) -> &'static [Direction] {
        &Direction::BOTH[..1 + usize::from(self.options.bidirectional)]
    }

    /// Size of the hidden state h: P with a projection, else H.
    pub fn state_size(&self) -> usize {
        if self.options.proj_size > 0 { self.options.proj_size } else { self.options.hidden_size }
    }

    /// Numbers a step gives out, D times the state size.
    pub fn output_size(&self) -> usize {
        self.directions().len() * self.state_size()
    }

    /// Layer and direction pairs, in the order of states: l0, l0_reverse, l1, ...
    pub fn slots(&self) -> usize {
        self.num_layers() * self.directions().len()
    }

    /// Numbers in all parameters.
    pub fn len(&self) -> usize {
        self.layer_start(self.num_layers())
    }

    /// Numbers in the parameters of all layers below `layer`: from the second layer on all
    /// are alike.
    fn layer_start(&self, layer: usize) -> usize {
        let one = |layer| self.directions().len() * self.shape(layer).len();
        match layer {
            0 => 0,
            _ => one(0) + (layer - 1) * one(1),
        }
    }

    /// Never: there is at least one weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sizes of one direction of `layer`.
    pub fn shape(&self, layer: usize) -> Shape {
        let o = &self.options;
        let input = if layer == 0 { o.input_size } else { self.output_size() };
        let state = self.state_size();
        let columns = o.cell.gates() * o.hidden_size;
        let mut end = 0;
        let mut take = |len: usize| {
            let range = end..end + len;
            end += len;
            range
        };
        Shape {
            cell: o.cell,
            input,
            hidden: o.hidden_size,
            state,
            directions: self.directions().len(),
            recurrent_dropout: o.recurrent_dropout,
            zoneout_h: o.zoneout,
            zoneout_c: o.zoneout_cell,
            weight_ih: take(columns * input),
            weight_hh: take(columns * state),
            bias_ih: o.bias.then(|| take(columns)),
            bias_hh: (o.bias && o.cell.has_recurrent_bias()).then(|| take(columns)),
            weight_hr: (o.proj_size > 0).then(|| take(o.proj_size * o.hidden_size)),
            norms: o.layer_norm.then(|| Norms {
                ih: take(columns),
                hh: take(columns),
                c: (o.cell.states() > 1).then(|| [take(o.hidden_size), take(o.hidden_size)]),
            }),
            per_unit: take(o.cell.per_unit().len() * o.hidden_size),
        }
    }

    /// Where the numbers of one direction of `layer` lie among all of them.
    pub fn slot_range(&self, layer: usize, direction: usize) -> Range<usize> {
        let len = self.shape(layer).len();
        let start = self.layer_start(layer) + direction * len;
        start..start + len
    }

    /// Every parameter, in the order in which their numbers lie.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for layer in 0..self.num_layers() {
            let shape = self.shape(layer);
            let columns = shape.gate_columns();
            for (d, &direction) in self.directions().iter().enumerate() {
                let start = self.slot_range(layer, d).start;
                let suffix = match direction {
                    Direction::Forward => "",
                    Direction::Reverse => "_reverse",
                };
                let mut add = |stem: &str, role, range: &Range<usize>, dims: &[usize]| {
                    parameters.push(Parameter {
                        name: format!("{stem}_l{layer}{suffix}"),
                        role,
                        layer,
                        direction,
                        shape: dims.to_vec(),
                        range: start + range.start..start + range.end,
                    });
                };
                add("weight_ih", Role::WeightIh, &shape.weight_ih, &[columns, shape.input]);
                add("weight_hh", Role::WeightHh, &shape.weight_hh, &[columns, shape.state]);
                if let Some(range) = &shape.bias_ih {
                    add("bias_ih", Role::BiasIh, range, &[columns]);
                }
                if let Some(range) = &shape.bias_hh {
                    add("bias_hh", Role::BiasHh, range, &[columns]);
                }
                if let Some(range) = &shape.weight_hr {
                    add("weight_hr", Role::WeightHr, range, &[shape.state, shape.hidden]);
                }
                if let Some(norms) = &shape.norms {
                    add("norm_ih", Role::Norm, &norms.ih, &[columns]);
                    add("norm_hh", Role::Norm, &norms.hh, &[columns]);
                    if let Some([scale, bias]) = &norms.c {
                        add("norm_c", Role::Norm, scale, &[shape.hidden]);
                        add("norm_bias_c", Role::NormBias, bias, &[shape.hidden]);
                    }
                }
                for (k, name) in shape.cell.per_unit().iter().enumerate() {
                    let from = shape.per_unit.start + k * shape.hidden;
                    let range = from..from + shape.hidden;
                    add(&format!("weight_{name}"), Role::PerUnit, &range, &[shape.hidden]);
                }
            }
        }
        parameters
    }
}

impl TryFrom<Options> for Spec {
    type Error = Error;

    fn try_from(options: Options) -> Result<Self, Error> {
        Self::new(options)
    }
}

impl From<Spec> for Options {
    fn from(spec: Spec) -> Self {
        spec.options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut Options)) -> Result<Spec, Error> {
        let mut options = Options::new(CellKind::Lstm, 3, 4);
        change(&mut options);
        Spec::new(options)
    }

    #[test]
    fn parameters_tile_the_numbers_without_gaps() {
        for cell in CellKind::ALL {
            let spec = spec(|o| {
                o.cell = cell;
                o.num_layers = 3;
                o.bidirectional = true;
                o.proj_size = if cell.states() > 1 { 2 } else { 0 };
            })
            .unwrap();
            let mut end = 0;
            for parameter in spec.parameters() {
                assert_eq!(parameter.range.start, end);
                assert_eq!(parameter.range.len(), parameter.shape.iter().product::<usize>());
                end = parameter.range.end;
            }
            assert_eq!(end, spec.len());
        }
    }

    #[test]
    fn names_are_those_of_pytorch() {
        let spec = spec(|o| o.bidirectional = true).unwrap();
        let names: Vec<String> = spec.parameters().into_iter().map(|p| p.name).collect();
        assert_eq!(names[3], "bias_hh_l0");
        assert_eq!(names[4], "weight_ih_l0_reverse");
    }

    #[test]
    fn what_a_unit_has_for_itself_comes_last() {
        let spec = spec(|o| (o.cell, o.bidirectional) = (CellKind::LstmPeephole, true)).unwrap();
        let parameters = spec.parameters();
        let names: Vec<&str> = parameters.iter().map(|p| &p.name[..]).collect();
        assert_eq!(names[4..7], ["weight_ci_l0", "weight_cf_l0", "weight_co_l0"]);
        assert_eq!(names[13], "weight_co_l0_reverse");
        assert!(parameters[4..7].iter().all(|p| p.role == Role::PerUnit && p.shape == [4]));
    }

    #[test]
    fn what_is_no_layer_is_refused_by_name() {
        for (change, name) in [
            ((|o: &mut Options| o.hidden_size = 0) as fn(&mut Options), "hidden_size"),
            (|o| o.num_layers = 0, "num_layers"),
            (|o| o.num_layers = MAX_LAYERS + 1, "num_layers"),
            (|o| o.dropout = 1.0, "dropout"),
            (|o| o.dropout = f64::NAN, "dropout"),
            (|o| o.zoneout = -0.1, "zoneout"),
            (|o| o.recurrent_dropout = 1.0, "recurrent_dropout"),
            (|o| (o.zoneout_cell, o.cell) = (0.5, CellKind::RnnTanh), "zoneout_cell"),
            (|o| o.proj_size = 4, "proj_size"),
            (|o| (o.proj_size, o.cell) = (2, CellKind::GruResetAfter), "proj_size"),
            (|o| o.hidden_size = 1 << 40, "parameters that fit"),
        ] {
            assert!(spec(change).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
