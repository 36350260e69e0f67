//! Inputs that break what was not thought of.

use seqrs_core::Steps;
use seqrs_gpu::Numbers;
use seqrs_gpu::program::{Access, Binding, BufferId, Command, Pipeline, Program};

use crate::case::{Case, Quantity, assert_same_bits, check, gpu, on_gpu, outcome, upload};

/// Enough rows that some gates are not saturated: where all are, 1 - h^2 is a rounding error.
#[test]
fn saturated_gates() {
    let rows = |time: usize| -> Vec<usize> { (0..20).map(|b| time - b % time).collect() };
    // Pre-activations beyond 100.
    for case in Case::all_cells(18, 1, &rows(1), |case| case.scale = 24.0) {
        check(&case);
    }
    // Beyond 200, and where every exp is 0 or infinite.
    for x_scale in [256.0, f64::from(1u32 << 30) * 1024.0] {
        for case in Case::all_cells(18, 6, &rows(6), |case| case.x_scale = x_scale) {
            check(&case);
        }
    }
}

#[test]
fn a_nan_stays_in_its_row() {
    let Some(gpu) = gpu() else { return };
    let (time, batch, at) = (4, 18, (2, 3));
    for case in Case::all_cells(18, time, &[time; 18], |_| ()) {
        let clean = on_gpu(gpu, &case);
        let poisoned = on_gpu(gpu, &Case { nan: Some(at), ..case.clone() });
        for (clean, poisoned) in clean.iter().zip(&poisoned) {
            for b in (0..batch).filter(|&b| b != at.1) {
                assert_eq!(
                    case.bits_of_row(clean, b),
                    case.bits_of_row(poisoned, b),
                    "row {b} of {} of {case:?}",
                    clean.name
                );
            }
        }
        let y = |outcome: &[Quantity]| case.bits_of_row(&outcome[0], at.1);
        let (clean, poisoned) = (y(&clean), y(&poisoned));
        let (before, after) = poisoned.split_at(poisoned.len() / time * at.0);
        assert_eq!(before, &clean[..before.len()], "{case:?}");
        assert!(after.iter().all(|&bits| f64::from_bits(bits).is_nan()), "{case:?}");
    }
}

#[test]
fn nothing_at_all() {
    for mut case in Case::all_cells(6, 3, &[0, 0], |case| case.options.bidirectional = true) {
        check(&case);
        for (time, batch) in [(3, 0), (0, 3), (0, 0)] {
            case.steps = Steps::dense(time, batch).unwrap();
            check(&case);
        }
    }
}

#[test]
fn a_row_alone_is_the_row_of_a_batch() {
    let Some(gpu) = gpu() else { return };
    let change = |case: &mut Case| {
        case.options.num_layers = 2;
        case.options.bidirectional = true;
    };
    let lengths: Vec<usize> = (0..20).map(|b| [5, 2, 0, 4][b % 4]).collect();
    for case in Case::all_cells(18, 5, &lengths, change) {
        let batch = on_gpu(gpu, &case);
        for b in [0, 1, 2, 3, 16, 19] {
            let alone = case.row(b);
            for (batch, one) in batch.iter().zip(on_gpu(gpu, &alone)) {
                assert_eq!(
                    case.bits_of_row(batch, b),
                    alone.bits_of_row(&one, 0),
                    "row {b} of {} of {case:?}",
                    batch.name
                );
            }
        }
    }
}

/// Fills the memory of workgroups with NaN.
const DIRTY: &str = "
struct Params { nothing: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;
var<workgroup> dirt: array<u32, 4096>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
    for (var k = thread; k < 4096u; k += 256u) {
        dirt[k] = 0x7fc00000u + p.nothing;
    }
    workgroupBarrier();
    seen[thread] = dirt[4095u - thread];
}
";

/// The same, with dirt in the memory of workgroups before each of its commands.
fn dirtied(mut program: Program) -> Program {
    let seen = BufferId(u64::MAX);
    let fill = Command::Dispatch {
        pipeline: program.pipelines.len(),
        buffers: vec![seen],
        params: vec![0],
        workgroups: [1, 1, 1],
    };
    program.buffers.push((seen, 1024));
    program.pipelines.push(Pipeline {
        label: "dirt".to_owned(),
        source: DIRTY.to_owned(),
        bindings: vec![Binding { name: "seen", number: "u32", access: Access::Write }],
    });
    program.commands =
        program.commands.into_iter().flat_map(|command| [fill.clone(), command]).collect();
    program.released.push(seen);
    program
}

#[test]
fn dirty_workgroup_memory() {
    let Some(gpu) = gpu() else { return };
    // Sums shorter than the tiles that lie there.
    for case in Case::all_cells(7, 3, &[3, 2], |_| ()) {
        let recorder = gpu.recorder();
        let read = |numbers: &Numbers| {
            gpu.run(&dirtied(recorder.program())).unwrap();
            gpu.read(&recorder, numbers).unwrap().into_iter().map(f64::from).collect()
        };
        let dirty = outcome(&recorder, &case, |v| upload(&recorder, v), read).unwrap();
        assert_same_bits(&case, &on_gpu(gpu, &case), &dirty);
    }
}
