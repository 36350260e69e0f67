//! What a GPU does not do is refused by name.

use seqrs_core::Error;
use seqrs_core::spec::Spec;

/// # Errors
/// [`Error::Option`] names an option of the stack that is not there on a GPU.
pub(super) fn check(stack: &Spec) -> Result<(), Error> {
    match stack.options().layer_norm {
        true => Err(Error::option("layer_norm", "false on a GPU, where cells have no norms", true)),
        false => Ok(()),
    }
}
