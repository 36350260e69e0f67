//! Outputs, states and all gradients against the naive backend in f64.

use seqrs_core::Steps;

use crate::case::{Case, assert_same_bits, assert_true, check, gpu, on_gpu};

#[test]
fn every_cell_at_every_size() {
    for hidden in [1, 7, 33, 64, 65] {
        for (time, lengths) in [(1, vec![1]), (2, vec![2; 3]), (17, vec![17; 5])] {
            let cases = Case::every_cell(hidden, time, &lengths);
            let is_alone = |case: &Case| hidden == 1 && case.options.layer_norm;
            cases.iter().filter(|case| !is_alone(case)).for_each(check);
        }
    }
}

/// The sums of its gates are h times their weights, and their norm is the same for any h of its
/// sign: nothing but rounding is left of the gradient of h, where no gate hands h on.
#[test]
fn a_normalised_cell_of_one_unit() {
    let Some(gpu) = gpu() else { return };
    for case in Case::every_cell(1, 17, &[17, 3, 0, 9, 17]) {
        if case.options.layer_norm {
            let hands_on = case.options.cell.states() == 1;
            let mut found = on_gpu(gpu, &case);
            found.retain(|quantity| quantity.name != "d_h" || hands_on);
            assert_true(&case, &found);
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
    let rows: Vec<usize> = (0..37).map(|b| b % 5).collect();
    for (hidden, time, lengths) in [(7, 6, &[6, 0, 3, 5][..]), (18, 4, &[0, 0]), (20, 4, &rows)] {
        Case::every_cell(hidden, time, lengths).iter().for_each(check);
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
    for mut case in Case::every_cell(6, 5, &[5, 2, 0, 4]) {
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
