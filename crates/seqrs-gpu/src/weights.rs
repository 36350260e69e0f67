//! Weights in the order in which a step's sums read them (`shaders/sums.wgsl`).

use crate::params::{NONE, Pack};
use crate::recorder::{Numbers, Recorder};
use crate::row_kernels::{RowKernel, by_number};
use crate::rules::{padded, quads};

/// The weights of a product: sums of `terms` terms for each of `products` gates of `units` units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) units: usize,
    pub(crate) products: usize,
    /// Runs of terms, each filled up to a multiple of four.
    pub(crate) runs: usize,
    pub(crate) run: usize,
    pub(crate) from_at: usize,
    /// From run to run, term to term, gate to gate, unit to unit.
    pub(crate) strides: [usize; 4],
    pub(crate) bias_at: Option<usize>,
}

impl Product {
    /// x W^T + b: W has a row of `depth` numbers for each unit of each gate, and begins at
    /// `from_at`.
    pub(crate) fn forward(
        gates: usize,
        units: usize,
        depth: usize,
        from_at: usize,
        bias_at: Option<usize>,
    ) -> Self {
        let strides = [0, 1, units * depth, depth];
        Self { units, products: gates, runs: 1, run: depth, from_at, strides, bias_at }
    }

    /// d W: W has a row of `units` numbers for each of `hidden` units of `gates` gates.
    pub(crate) fn backward(gates: usize, hidden: usize, units: usize, from_at: usize) -> Self {
        let strides = [hidden * units, units, 0, 1];
        Self { units, products: 1, runs: gates, run: hidden, from_at, strides, bias_at: None }
    }

    /// No product: what each unit has for itself, as the biases of one without terms.
    pub(crate) fn per_unit(count: usize, hidden: usize, from_at: usize) -> Self {
        let strides = [0; 4];
        let bias_at = Some(from_at);
        Self { units: hidden, products: count, runs: 0, run: 1, from_at, strides, bias_at }
    }

    /// A fourth of the terms of a sum.
    pub(crate) fn depth(&self) -> usize {
        self.runs * quads(self.run)
    }

    /// Numbers that it takes.
    fn len(&self) -> usize {
        (4 * self.depth() + 1) * self.products * padded(self.units)
    }
}

/// Weights of one product, or of a cell's two, and behind them what each unit has for itself.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) numbers: Numbers,
    /// Where those of the second product begin, in fours.
    pub(crate) second_at: usize,
    /// Where those of the last begin, in fours.
    pub(crate) last_at: usize,
}

impl Recorder {
    /// Packs the weights of these products, one behind the other.
    pub(crate) fn packed_weights(&self, parameters: &Numbers, products: &[Product]) -> Packed {
        let to = self.blank_buffer(products.iter().map(Product::len).sum());
        let mut to_at = 0;
        for product in products {
            let [from_run, from_term, from_product, from_unit] = product.strides;
            let params = Pack {
                units: product.units as u32,
                products: product.products as u32,
                runs: product.runs as u32,
                run: product.run as u32,
                from_at: product.from_at as u32,
                from_run: from_run as u32,
                from_term: from_term as u32,
                from_product: from_product as u32,
                from_unit: from_unit as u32,
                bias_at: product.bias_at.map_or(NONE, |at| at as u32),
                to_at: to_at as u32,
            };
            let groups = by_number(product.len());
            self.rows(RowKernel::Pack, &[parameters, &to], params.words(), groups);
            to_at += product.len();
        }
        let last = products.last().map_or(0, Product::len);
        Packed { numbers: to, second_at: products[0].len() / 4, last_at: (to_at - last) / 4 }
    }
}
