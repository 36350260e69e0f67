//! What a GPU does not do is refused by name.

use seqrs_core::Error;
use seqrs_core::spec::Spec;

/// # Errors
/// [`Error::Option`] names an option of the stack that is not there on a GPU.
pub(super) fn check(stack: &Spec) -> Result<(), Error> {
    let options = stack.options();
    for (name, share) in [
        ("recurrent_dropout", options.recurrent_dropout),
        ("zoneout", options.zoneout),
        ("zoneout_cell", options.zoneout_cell),
    ] {
        if share > 0.0 {
            let expected = "0 on a GPU, where nothing is done to states but by the cell";
            return Err(Error::option(name, expected, share));
        }
    }
    match options.layer_norm {
        true => Err(Error::option("layer_norm", "false on a GPU, where cells have no norms", true)),
        false => Ok(()),
    }
}
