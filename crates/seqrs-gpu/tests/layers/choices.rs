//! Which kernels are chosen is a matter of speed alone.

use std::cell::RefCell;

use seqrs_core::cell::CellKind;
use seqrs_gpu::{Recorder, Rules, Tile};

use crate::case::{Case, assert_same_bits, assert_true, gpu, on_gpu, outcome, recorded_by, upload};

fn by_steps(tile: Tile) -> Rules {
    Rules { enough: 1, tiles: vec![(usize::MAX, tile)], all_steps: 0, ..Rules::default() }
}

#[test]
fn every_choice_gives_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let tile = |rows, share, parts, groups| Tile { rows, share, parts, groups };
    let tiles = [tile(1, 1, 16, 8), tile(4, 4, 16, 8), tile(16, 4, 16, 4), tile(32, 8, 4, 8)];
    let change = |case: &mut Case| {
        case.options.num_layers = 2;
        case.options.bidirectional = true;
    };
    for case in Case::all_cells(21, 8, &[8, 0, 3, 7, 1], change) {
        // All steps at once, but for the projected.
        let want = on_gpu(gpu, &case);
        // Three steps, or a product of 64 rows, in a dispatch.
        let most = 3 * 5 * case.options.cell.gates() * 21 * 21;
        let recorder = gpu.recorder().with_most_work(most);
        assert_same_bits(&case, &want, &recorded_by(&recorder, gpu, &case).unwrap());
        for tile in tiles {
            let recorder = gpu.recorder().with_rules(by_steps(tile));
            assert_same_bits(&case, &want, &recorded_by(&recorder, gpu, &case).unwrap());
        }
    }
}

/// Sums over items that are shared, with steps in one piece and in several.
#[test]
fn shared_sums() {
    let Some(gpu) = gpu() else { return };
    let rules = Rules { terms_of_product: 16, rows_of_columns: 16, ..Rules::default() };
    for case in Case::all_cells(9, 13, &[13, 7, 13, 0, 2, 13, 10], |_| ()) {
        let with = |largest_buffer: u64| {
            let recorder = Recorder::with_largest_buffer(largest_buffer).with_rules(rules.clone());
            recorded_by(&recorder, gpu, &case).unwrap()
        };
        let whole = with(1 << 20);
        assert_true(&case, &whole);
        // Pieces of two steps, whose items are no multiple of what is shared at a time.
        let row = case.numbers_of_an_item();
        assert_same_bits(&case, &whole, &with(4 * 7 * 2 * row as u64));
    }
}

/// Small layers go through all steps at once by the table's rule, larger ones do not.
#[test]
fn the_rules_choose_as_they_say() {
    let Some(gpu) = gpu() else { return };
    let shaders = |hidden: usize, rules: Rules| -> Vec<String> {
        let case = Case::new(CellKind::Lstm, hidden, 3, &[3, 2]);
        let recorder = gpu.recorder().with_rules(rules);
        let labels = RefCell::new(Vec::new());
        let note = || {
            let pipelines = recorder.program().pipelines.into_iter();
            labels.borrow_mut().extend(pipelines.map(|pipeline| pipeline.label));
        };
        outcome(
            &recorder,
            &case,
            |values| upload(&recorder, values),
            |numbers| {
                note();
                vec![0.0; numbers.len()]
            },
        )
        .unwrap();
        labels.into_inner()
    };
    let has = |labels: &[String], start: &str| labels.iter().any(|label| label.starts_with(start));
    for (hidden, rules, at_once) in [
        (64, Rules::default(), true),
        (65, Rules::default(), false),
        (64, Rules { all_steps: 0, ..Rules::default() }, false),
    ] {
        let labels = shaders(hidden, rules);
        assert_eq!(has(&labels, "all steps of"), at_once, "{hidden}: {labels:?}");
        assert_eq!(has(&labels, "all steps back of"), at_once, "{hidden}: {labels:?}");
        assert_eq!(has(&labels, "step of"), !at_once, "{hidden}: {labels:?}");
        assert_eq!(has(&labels, "step back of"), !at_once, "{hidden}: {labels:?}");
    }
}
