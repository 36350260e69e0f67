//! Layers whose steps are cut in pieces, and what is too large to be cut.

use seqrs_core::Error;
use std::cell::RefCell;

use seqrs_core::backend::Backend;
use seqrs_core::cell::CellKind;
use seqrs_gpu::Recorder;
use seqrs_gpu::device::GpuError;

use crate::case::{Case, assert_same_bits, gpu, on_gpu, outcome, recorded_by, upload};

#[test]
fn pieces_give_the_same_bits_as_the_whole() {
    let Some(gpu) = gpu() else { return };
    let change = |case: &mut Case| {
        case.options.num_layers = 2;
        case.options.bidirectional = true;
    };
    for case in Case::all_cells(18, 11, &[11, 0, 4, 9, 7], change) {
        let whole = on_gpu(gpu, &case);
        // A step, four steps, and all but one in a piece.
        for steps in [1, 4, 10] {
            let row = case.numbers_of_an_item();
            let recorder = Recorder::with_largest_buffer((4 * 5 * steps * row) as u64);
            let pieces = recorded_by(&recorder, gpu, &case).unwrap();
            assert_same_bits(&case, &whole, &pieces);
        }
    }
}

/// Needs no device. The inputs and outputs are the caller's, and whole.
#[test]
fn no_buffer_is_larger_than_it_may_be() {
    for case in Case::all_cells(18, 50, &[50; 5], |_| ()) {
        let most = 4 * 50 * 5 * 18;
        let recorder = Recorder::with_largest_buffer(most);
        let made = RefCell::new(Vec::new());
        outcome(
            &recorder,
            &case,
            |v| upload(&recorder, v),
            |numbers| {
                made.borrow_mut().extend(recorder.program().buffers);
                vec![0.0; numbers.len()]
            },
        )
        .unwrap();
        assert!(made.borrow().iter().all(|&(_, bytes)| bytes <= most), "{case:?}");
    }
}

#[test]
fn a_step_that_no_buffer_holds_is_refused() {
    let Some(gpu) = gpu() else { return };
    for case in Case::all_cells(18, 3, &[3; 5], |_| ()) {
        let recorder = Recorder::with_largest_buffer(200);
        let error = recorded_by(&recorder, gpu, &case).err();
        assert!(matches!(error, Some(Error::Shape { .. })), "{case:?}: {error:?}");
    }
}

#[test]
fn a_buffer_that_no_shader_sees_is_refused() {
    let Some(gpu) = gpu() else { return };
    let have = gpu.description().largest_binding;
    let recorder = gpu.recorder();
    let ones = recorder.numbers(&[1.0; 3]);
    let large = recorder.zeros(have as usize / 4 + 1).unwrap();
    let error = gpu.read(&recorder, &large).unwrap_err();
    assert!(matches!(error, GpuError::Unsupported { need, have: limit, .. }
        if need > have && limit == have));
    // What was to be made with it was not, and says so.
    assert!(matches!(gpu.read(&recorder, &ones), Err(GpuError::Refused(_))));
    let sum = recorder.times(&ones, &ones).unwrap();
    assert!(matches!(gpu.read(&recorder, &sum), Err(GpuError::Refused(_))));
    // The next program is none the worse for it.
    let case = Case::new(CellKind::Lstm, 7, 3, &[3, 2]);
    outcome(&recorder, &case, |v| upload(&recorder, v), |numbers| vec![0.0; numbers.len()])
        .unwrap();
    let large = recorder.zeros(have as usize / 4 + 1).unwrap();
    assert!(gpu.read(&recorder, &large).is_err());
    let got = recorded_by(&recorder, gpu, &case).unwrap();
    assert_same_bits(&case, &on_gpu(gpu, &case), &got);
}
