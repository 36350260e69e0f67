//! The functions of a cell in its shader.
//!
//! One text has all that can be chosen (`shaders/functions/chosen.wgsl`); what was chosen stands in
//! front of it as constants, under the names that core has for it.

use seqrs_core::cell::{Bound, Chosen, Function};

/// The text of sigmoid and tanh.
pub(crate) const STANDARD: &str = include_str!("shaders/functions/standard.wgsl");

/// The text of chosen functions.
pub(crate) fn chosen(chosen: Chosen) -> String {
    let Chosen { gate, candidate, output, clip } = chosen;
    let functions = [("GATE", gate), ("CANDIDATE", candidate), ("OUTPUT", output)];
    let constants = functions.map(|(name, function)| {
        let Function { name: function, alpha, beta } = function;
        format!("const {name} = Function({function:?}, {}, {});\n", number(alpha), number(beta))
    });
    let bound = clip.map_or(0.0, |Bound(clip)| clip);
    let cut = format!("const IS_CUT = {};\nconst CLIP = {};\n", clip.is_some(), number(bound));
    [&constants.concat(), &cut, include_str!("shaders/functions/chosen.wgsl")].concat()
}

/// A number of f32, of which those beyond the largest are the largest: no constant of a shader is
/// infinite.
fn number(value: f64) -> String {
    format!("{:?}f", (value as f32).clamp(f32::MIN, f32::MAX))
}
