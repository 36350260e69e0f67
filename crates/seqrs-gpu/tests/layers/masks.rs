//! Recurrent dropout and zoneout.

use seqrs_core::Steps;
use seqrs_gpu::{Recorder, Rules, Tile};

use crate::case::{Case, assert_same_bits, assert_true, check, gpu, on_gpu, recorded_by};

/// Every cell, with each of the three alone and with all of them.
fn cases(hidden: usize, time: usize, lengths: &[usize]) -> Vec<Case> {
    let with = |recurrent: f64, zoneout: f64, zoneout_cell: f64| {
        Case::all_cells(hidden, time, lengths, |case| {
            case.options.recurrent_dropout = recurrent;
            case.options.zoneout = zoneout;
            if case.options.cell.states() > 1 {
                case.options.zoneout_cell = zoneout_cell;
            }
            case.drawn = true;
        })
    };
    [with(0.4, 0.0, 0.0), with(0.0, 0.3, 0.0), with(0.0, 0.0, 0.3), with(0.3, 0.2, 0.4)].concat()
}

fn layers_and_directions(case: &mut Case) {
    case.options.num_layers = 2;
    case.options.bidirectional = true;
}

#[test]
fn every_cell_as_it_was_drawn() {
    for case in cases(7, 6, &[6, 0, 3, 5]) {
        check(&case);
    }
}

/// As at inference, and in training for who draws nothing.
#[test]
fn every_cell_by_shares() {
    for mut case in cases(7, 6, &[6, 0, 3, 5]) {
        case.drawn = false;
        check(&case);
    }
}

#[test]
fn layers_directions_and_holes() {
    let live = |t: usize, b: usize| !(t + 2 * b).is_multiple_of(3) && b != 4 && t != 5;
    for mut case in cases(18, 7, &[7; 20]).into_iter().step_by(3) {
        layers_and_directions(&mut case);
        case.steps = Steps::from_mask(7, 20, live).unwrap();
        check(&case);
        case.options.bias = false;
        case.with_d_y = false;
        check(&case);
    }
}

#[test]
fn a_row_has_the_same_bits_alone() {
    let Some(gpu) = gpu() else { return };
    for mut case in cases(9, 5, &[5, 2, 0, 4]).into_iter().step_by(4) {
        layers_and_directions(&mut case);
        let all = on_gpu(gpu, &case);
        for b in 0..4 {
            let alone = case.row(b);
            for (all, one) in all.iter().zip(&on_gpu(gpu, &alone)) {
                let (want, got) = (case.bits_of_row(all, b), alone.bits_of_row(one, 0));
                assert_eq!(want, got, "{} of row {b} of {case:?}", all.name);
            }
        }
    }
}

#[test]
fn pieces_and_tiles_give_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let tile = Tile { rows: 4, share: 4, parts: 16, groups: 8 };
    let rules = Rules { enough: 1, tiles: vec![(usize::MAX, tile)], ..Rules::default() };
    for mut case in cases(10, 8, &[8, 0, 3, 7, 1]).into_iter().step_by(2) {
        layers_and_directions(&mut case);
        let whole = on_gpu(gpu, &case);
        assert_true(&case, &whole);
        assert_same_bits(&case, &whole, &on_gpu(gpu, &case));
        let recorder = gpu.recorder().with_rules(rules.clone());
        assert_same_bits(&case, &whole, &recorded_by(&recorder, gpu, &case).unwrap());
        // Three steps in a piece.
        let row = case.numbers_of_an_item();
        let recorder = Recorder::with_largest_buffer((4 * 5 * 3 * row) as u64);
        assert_same_bits(&case, &whole, &recorded_by(&recorder, gpu, &case).unwrap());
    }
}
