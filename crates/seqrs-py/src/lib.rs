//! The extension module `seqrs._seqrs`: convert, release the GIL, call seqrs, convert back.
//!
//! There is no mathematics here and no policy. Signatures, documentation and the checks of
//! options are in the Python files around it; arrays are checked here, where they are read.
//!
//! The life of a call: [`entry::guard`] (no panic leaves), [`arrays`] and [`batch`] (copy
//! the caller's live rows, with the GIL), [`entry::compute`] (without the GIL, Ctrl-C
//! heard), [`arrays::new`] (results as new arrays), [`errors`] (one table).
//!
//! With the feature `gpu`, which is on by default, it computes on GPUs too; without it `gpu` is
//! `no_gpu.rs`, and nothing else differs.

mod arrays;
mod batch;
mod batcher;
mod device;
mod diagnosis;
mod entry;
mod errors;
mod files;
mod generation;
#[cfg_attr(not(feature = "gpu"), path = "no_gpu.rs")]
mod gpu;
mod layer;
mod loss;
mod model;
mod network;
mod owner;
mod quantised;
mod ranges;
mod state;
mod stepping;
mod stream_pool;
mod tape;
mod testing;
mod threads;
mod trainer;
mod weights;

use pyo3::prelude::*;

/// The compiled part of seqrs.
#[pymodule(gil_used = true)]
fn _seqrs(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<batcher::Mailbox>()?;
    module.add_class::<batcher::PyBatcher>()?;
    module.add_class::<batcher::PyTicket>()?;
    module.add_class::<layer::PyLayer>()?;
    module.add_class::<model::PyModel>()?;
    module.add_class::<quantised::PyQuantised>()?;
    module.add_class::<tape::Tape>()?;
    module.add_class::<stream_pool::PyStream>()?;
    module.add_class::<stream_pool::PyStreamPool>()?;
    module.add_class::<trainer::PyTrainer>()?;
    module.add_function(wrap_pyfunction!(device::gpu_adapters, module)?)?;
    module.add_function(wrap_pyfunction!(files::foreign_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(files::load, module)?)?;
    module.add_function(wrap_pyfunction!(generation::generate, module)?)?;
    module.add_function(wrap_pyfunction!(loss::loss_value, module)?)?;
    module.add_function(wrap_pyfunction!(loss::loss_gradient, module)?)?;
    module.add_function(wrap_pyfunction!(threads::set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::asked_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::restore_threads, module)?)?;
    module.add_function(wrap_pyfunction!(threads::info, module)?)?;
    module.add_function(wrap_pyfunction!(testing::_panic, module)?)?;
    module.add_function(wrap_pyfunction!(testing::_panic_in, module)?)?;
    module.add_function(wrap_pyfunction!(testing::_shaders, module)?)?;
    module.add_function(wrap_pyfunction!(testing::_traced, module)?)?;
    Ok(())
}
