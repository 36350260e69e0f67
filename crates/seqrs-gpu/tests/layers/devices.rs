//! Which devices there are, two at a time, and those that are refused.

use std::env;
use std::process::Command;

use seqrs_core::cell::CellKind;
use seqrs_gpu::device::{ALLOW_CPU, Gpu, GpuError, adapters};

use crate::case::{Case, assert_same_bits, gpu, on_gpu};

/// Runs a test in a process of its own, since drivers read their settings once.
fn in_a_process(test: &str, change: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads", "1"]);
    let output = change(&mut command).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{test}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn two_devices_at_once() {
    let Some(one) = gpu() else { return };
    let other = Gpu::new(0).unwrap();
    let case = Case::new(CellKind::Lstm, 18, 3, &[3, 2]);
    let want = on_gpu(one, &case);
    assert_same_bits(&case, &want, &on_gpu(&other, &case));
    assert_same_bits(&case, &want, &on_gpu(one, &case));
}

#[test]
fn an_adapter_that_is_not_there_is_refused() {
    let error = Gpu::new(99).unwrap_err();
    assert!(matches!(&error, GpuError::NoAdapter { .. }));
    assert!(error.to_string().contains("expected adapter 99"), "{error}");
}

#[test]
fn software_is_refused_unless_it_is_allowed() {
    if !adapters().first().is_some_and(|adapter| adapter.is_software) {
        eprintln!("skipped: no adapter, or one that is not software");
        return;
    }
    if env::var_os(ALLOW_CPU).is_some() {
        let test = "devices::software_is_refused_unless_it_is_allowed";
        return in_a_process(test, |command| command.env_remove(ALLOW_CPU));
    }
    let error = Gpu::new(0).unwrap_err();
    assert!(matches!(&error, GpuError::NoAdapter { .. }));
    assert!(error.to_string().contains(ALLOW_CPU), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_a_driver_there_is_no_device() {
    const NONE: &str = "/nonexistent.json";
    const DRIVERS: &str = "VK_DRIVER_FILES";
    if env::var_os(DRIVERS).is_none_or(|drivers| drivers != NONE) {
        let test = "devices::without_a_driver_there_is_no_device";
        return in_a_process(test, |command| command.env(DRIVERS, NONE));
    }
    assert_eq!(adapters(), []);
    let error = Gpu::new(0).unwrap_err();
    assert!(error.to_string().contains("got no adapter"), "{error}");
}

/// Of lavapipe: the width of its registers is that of a subgroup.
#[test]
fn every_width_of_subgroups() {
    if gpu().is_none_or(|gpu| !gpu.description().is_software) {
        return;
    }
    for width in ["128", "512"] {
        for test in ["values::masks_with_holes", "hard::a_nan_stays_in_its_row"] {
            in_a_process(test, |command| command.env("LP_NATIVE_VECTOR_WIDTH", width));
        }
    }
}

/// Of lavapipe: workgroups that run at the same time, so that one which meddles with another's rows
/// is seen.
#[test]
fn workgroups_at_the_same_time() {
    if gpu().is_none_or(|gpu| !gpu.description().is_software) {
        return;
    }
    for test in ["values::masks_with_holes", "values::lengths"] {
        in_a_process(test, |command| command.env("LP_NUM_THREADS", "4"));
    }
}
