//! Outputs, states and all gradients against the naive backend in f64.

use seqrs_core::Steps;
use seqrs_core::cell::CellKind;

use crate::case::{Case, assert_same_bits, check, gpu, on_gpu};

#[test]
fn every_cell_at_every_size() {
    for cell in CellKind::ALL {
        for hidden in [1, 7, 33, 64, 65] {
            for (time, lengths) in [(1, vec![1]), (2, vec![2; 3]), (17, vec![17; 5])] {
                check(&Case::new(cell, hidden, time, &lengths));
            }
        }
    }
}

#[test]
fn projections() {
    for (hidden, size) in [(2, 1), (7, 3), (17, 16), (21, 20), (40, 17)] {
        for (time, lengths) in [(1, vec![1]), (5, vec![5; 3]), (4, vec![3, 0, 4])] {
            check(&Case::projected(hidden, size, time, &lengths));
        }
        let mut case = Case::projected(hidden, size, 4, &[4, 1, 0, 3]);
        case.options.num_layers = 2;
        case.options.bidirectional = true;
        check(&case);
        case.options.bias = false;
        case.with_d_y = false;
        check(&case);
    }
}

#[test]
fn lengths() {
    for cell in CellKind::ALL {
        check(&Case::new(cell, 7, 6, &[6, 0, 3, 5]));
        check(&Case::new(cell, 18, 4, &[0, 0]));
        let rows: Vec<usize> = (0..37).map(|b| b % 5).collect();
        check(&Case::new(cell, 20, 4, &rows));
    }
}

#[test]
fn masks_with_holes() {
    for mut case in Case::all_cells(18, 7, &[7; 20], |case| case.options.bidirectional = true) {
        let live = |t: usize, b: usize| !(t + 2 * b).is_multiple_of(3) && b != 4 && t != 5;
        case.steps = Steps::from_mask(7, 20, live).unwrap();
        check(&case);
    }
}

#[test]
fn layers_and_directions() {
    for cell in CellKind::ALL {
        let mut case = Case::new(cell, 6, 5, &[5, 2, 0, 4]);
        case.options.num_layers = 3;
        case.options.bidirectional = true;
        check(&case);
        case.options.bias = false;
        case.with_d_y = false;
        check(&case);
    }
}

#[test]
fn a_hundred_steps() {
    for case in Case::all_cells(16, 100, &[100, 63], |_| ()) {
        check(&case);
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    for case in Case::all_cells(33, 9, &[9, 4, 7], |_| ()) {
        assert_same_bits(&case, &on_gpu(gpu, &case), &on_gpu(gpu, &case));
    }
}
