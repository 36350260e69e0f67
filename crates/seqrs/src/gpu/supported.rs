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

#[cfg(test)]
mod tests {
    use seqrs_core::cell::CellKind;
    use seqrs_core::spec::Options;

    use super::*;

    #[test]
    fn norms_are_there_and_masks_on_states_are_refused_by_name() {
        let told = |options: Options| {
            check(&Spec::new(options).unwrap()).map_err(|error| error.to_string())
        };
        for layer_norm in [false, true] {
            let plain = || Options { layer_norm, ..Options::new(CellKind::Lstm, 2, 3) };
            assert_eq!(told(plain()), Ok(()));
            for (name, masked) in [
                ("recurrent_dropout", Options { recurrent_dropout: 0.5, ..plain() }),
                ("zoneout", Options { zoneout: 0.5, ..plain() }),
                ("zoneout_cell", Options { zoneout_cell: 0.5, ..plain() }),
            ] {
                let message = told(masked).unwrap_err();
                assert!(message.starts_with(&format!("{name}: expected 0 on a GPU")), "{message}");
            }
        }
    }
}
