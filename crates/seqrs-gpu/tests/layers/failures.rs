//! Callers that want to stop, and devices that are lost.

use std::cell::Cell;
use std::thread;

use seqrs_core::backend::Backend;
use seqrs_core::cell::CellKind;
use seqrs_core::{Error, interrupt};
use seqrs_gpu::device::{Gpu, GpuError};
use seqrs_gpu::program::{Command, Program};

use crate::case::{Case, assert_same_bits, gpu, on_gpu, recorded_by};

thread_local! {
    /// Questions that are still answered with no.
    static PATIENCE: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`, which wants to stop at the question after so many.
fn impatient<R>(patience: usize, work: impl FnOnce() -> R) -> R {
    fn stop() -> bool {
        let left = PATIENCE.get();
        PATIENCE.set(left.saturating_sub(1));
        left == 0
    }
    PATIENCE.set(patience);
    interrupt::scope(stop, work)
}

#[test]
fn a_caller_is_heard_at_every_question_and_leaves_no_trace() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(CellKind::Lstm, 18, 40, &[40, 31]);
    let want = on_gpu(gpu, &case);
    let recorder = gpu.recorder();
    let stopped = (0..).step_by(3).position(|patience| {
        match impatient(patience, || recorded_by(&recorder, gpu, &case)) {
            Err(Error::Interrupted) => false,
            found => {
                assert_same_bits(&case, &want, &found.unwrap());
                true
            }
        }
    });
    // Before, between submissions, and while it waits for results.
    assert!(stopped.unwrap() >= 3, "{stopped:?}");
}

#[test]
fn what_is_to_be_done_wholly_is_not_stopped_in_the_middle() {
    let Some(gpu) = gpu() else { return };
    let recorder = gpu.recorder();
    let steps = 200;
    let one = recorder.numbers(&[1.0]);
    let sum = recorder.zeros_of(1);
    gpu.run_recorded(&recorder).unwrap();
    let (mut undone, mut done) = (0, 0);
    for patience in 0.. {
        // First what may be stopped, then what may not.
        for _ in 0..steps {
            recorder.times(&one, &one).unwrap();
        }
        recorder.begin_whole();
        for _ in 0..steps {
            recorder.reduce(&[&one, &sum], false, &sum, 0);
        }
        let found = impatient(patience, || gpu.read(&recorder, &sum));
        let now = gpu.read(&recorder, &sum).unwrap()[0];
        match found {
            Err(error) => {
                assert_eq!((error, now), (GpuError::Interrupted, 0.0));
                undone += 1;
            }
            Ok(found) => {
                done = patience;
                assert_eq!((found[0], now), (steps as f32, steps as f32));
                break;
            }
        }
    }
    assert!(undone >= 3, "{undone} {done}");
}

/// Two threads share a recorder, and what one has recorded the other runs.
#[test]
fn nobody_stops_what_another_has_recorded() {
    let Some(gpu) = gpu() else { return };
    let recorder = gpu.recorder();
    let (ones, sum) = thread::scope(|scope| {
        let recorded = scope.spawn(|| {
            let ones = recorder.numbers(&[1.0; 3]);
            let mut sum = recorder.times(&ones, &ones).unwrap();
            for _ in 0..50 {
                sum = recorder.times(&sum, &ones).unwrap();
            }
            (ones, sum)
        });
        recorded.join().unwrap()
    });
    let mine = recorder.numbers(&[2.0; 3]);
    let found = impatient(0, || gpu.read(&recorder, &mine));
    assert_eq!(found, Ok(vec![2.0; 3]));
    assert_eq!(gpu.read_all(&recorder, &[&sum, &ones]), Ok(vec![vec![1.0; 3]; 2]));
}

#[test]
fn more_workgroups_than_a_device_has_are_refused() {
    let Some(gpu) = gpu() else { return };
    let recorder = gpu.recorder();
    let ones = recorder.numbers(&[1.0; 3]);
    gpu.run_recorded(&recorder).unwrap();
    recorder.times(&ones, &ones).unwrap();
    let mut program = recorder.program();
    for command in &mut program.commands {
        if let Command::Dispatch { workgroups, .. } = command {
            *workgroups = [1 << 16, 1, 1];
        }
    }
    let error = gpu.run(&program).unwrap_err();
    let (limit, need, have) = ("workgroups along an axis", 1 << 16, (1 << 16) - 1);
    assert_eq!(error, GpuError::Unsupported { limit, need, have });
    assert_eq!(gpu.read(&recorder, &ones), Ok(vec![1.0; 3]));
}

#[test]
fn a_lost_device_says_so_at_every_call() {
    let Some(other) = gpu() else { return };
    let case = Case::new(CellKind::Lstm, 18, 3, &[3, 2]);
    let want = on_gpu(other, &case);
    for is_busy in [false, true] {
        let gpu = Gpu::new(0).unwrap();
        let recorder = gpu.recorder();
        let ones = recorder.numbers(&[1.0; 3]);
        assert_eq!(gpu.read(&recorder, &ones), Ok(vec![1.0; 3]));
        if is_busy {
            let sum = recorder.times(&ones, &ones).unwrap();
            gpu.run_recorded(&recorder).unwrap();
            drop(sum);
        }
        assert!(!gpu.is_lost());
        gpu.lose();
        for _ in 0..3 {
            let lost = |error: GpuError| {
                assert!(matches!(error, GpuError::DeviceLost(_)), "{error}");
                assert!(error.to_string().contains("lost"), "{error}");
            };
            // The first call says so, also one that waits for nothing.
            lost(gpu.run(&Program::default()).unwrap_err());
            lost(gpu.read(&recorder, &ones).unwrap_err());
            let sum = recorder.times(&ones, &ones).unwrap();
            lost(gpu.run_recorded(&recorder).unwrap_err());
            lost(gpu.read(&recorder, &sum).unwrap_err());
            let error = recorded_by(&gpu.recorder(), &gpu, &case).err().unwrap();
            assert!(matches!(error, Error::NoDevice { .. }), "{error}");
            assert!(gpu.is_lost());
        }
        // What is on others stays, and the adapter can be opened again.
        assert_same_bits(&case, &want, &on_gpu(other, &case));
        assert_same_bits(&case, &want, &on_gpu(&Gpu::new(0).unwrap(), &case));
    }
}
