//! Devices: which there are, and one that runs programs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use seqrs_core::Error;

use crate::executor::Compiled;
use crate::pool::Pool;
use crate::program::BufferId;
use crate::released::Released;
use crate::trace::Trace;
use crate::turn::Turns;

/// Set to 1, it lets software adapters be used: they are for tests, and slower than the CPU
/// backend.
pub const ALLOW_CPU: &str = "SEQRS_GPU_ALLOW_CPU";

/// What can go wrong with a device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum GpuError {
    /// There is none, or none with this number.
    NoAdapter {
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// It cannot do what was asked.
    Unsupported {
        /// The limit.
        limit: &'static str,
        /// What is needed.
        need: u64,
        /// What it has.
        have: u64,
    },
    /// There is no memory left for what goes to it or comes from it.
    OutOfMemory {
        /// Where: its own memory, or this computer's for what comes from it.
        what: &'static str,
        /// What was asked for.
        bytes: u64,
    },
    /// It is gone: the driver was reset, or the device taken away.
    DeviceLost(String),
    /// It refused what seqrs asked for, which is a bug in seqrs or in a driver.
    Refused(String),
    /// The caller asked for the computation to stop.
    Interrupted,
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdapter { wanted, found } => write!(f, "GPU: expected {wanted}, got {found}"),
            Self::Unsupported { limit, need, have } => {
                write!(f, "GPU {limit}: expected at least {need}, got {have}")
            }
            Self::OutOfMemory { what, bytes } => {
                write!(f, "{what}: expected room for {bytes} bytes, got none")
            }
            Self::DeviceLost(reason) => write!(f, "GPU: expected a device, got lost: {reason}"),
            Self::Refused(words) => write!(f, "GPU: expected to work, got {words}"),
            Self::Interrupted => write!(f, "GPU: expected to finish, got an interrupt"),
        }
    }
}

impl std::error::Error for GpuError {}

impl From<GpuError> for Error {
    fn from(error: GpuError) -> Self {
        match error {
            GpuError::NoAdapter { wanted, found } => Self::no_device("GPU", wanted, found),
            GpuError::Unsupported { limit, need, have } => {
                Self::no_device(format!("GPU {limit}"), format!("at least {need}"), have)
            }
            GpuError::OutOfMemory { what, bytes } => {
                Self::OutOfMemory { what: what.to_owned(), bytes: bytes.into() }
            }
            GpuError::DeviceLost(reason) => {
                Self::no_device("GPU", "a device", format!("lost: {reason}"))
            }
            GpuError::Refused(words) => Self::no_device("GPU", "to work", words),
            GpuError::Interrupted => Self::Interrupted,
        }
    }
}

/// An adapter, as the driver describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Of its driver.
    pub driver: String,
    /// Vulkan, Metal or DX12.
    pub api: String,
    /// Whether it is made of software, which needs [`ALLOW_CPU`].
    pub is_software: bool,
    /// Bytes of the largest buffer that a shader can see.
    pub largest_binding: u64,
}

/// The adapters of this machine in the order of their numbers: GPUs of their own first, software
/// last.
pub fn adapters() -> Vec<Description> {
    found().iter().map(describe).collect()
}

fn found() -> &'static [wgpu::Adapter] {
    static FOUND: OnceLock<Vec<wgpu::Adapter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::PRIMARY,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        found.sort_by_key(|adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        });
        found
    })
}

fn describe(adapter: &wgpu::Adapter) -> Description {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Description {
        name: info.name,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        api: info.backend.to_string(),
        is_software: info.device_type == wgpu::DeviceType::Cpu,
        largest_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
    }
}

/// A device that runs programs.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) state: Turns<State>,
    /// What the recorders that were made for it release.
    pub(crate) released: Mutex<Vec<Arc<Released>>>,
    pub(crate) trace: Trace,
    lost: Arc<OnceLock<String>>,
    description: Description,
}

/// What a device holds from one program to the next.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) buffers: HashMap<BufferId, wgpu::Buffer>,
    pub(crate) pool: Pool,
    /// By the text of the shader.
    pub(crate) compiled: HashMap<String, Arc<Compiled>>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Gpu {
    /// The device of adapter `number` of [`adapters`].
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] if there is none of that number, or it is software and
    /// [`ALLOW_CPU`] is not 1.
    pub fn new(number: usize) -> Result<Self, GpuError> {
        let found = found();
        let Some(adapter) = found.get(number) else {
            let found = match found.len() {
                0 => "no adapter".to_owned(),
                n => format!("adapters 0 to {}", n - 1),
            };
            return Err(GpuError::NoAdapter { wanted: format!("adapter {number}"), found });
        };
        let description = describe(adapter);
        if description.is_software && std::env::var(ALLOW_CPU).as_deref() != Ok("1") {
            return Err(GpuError::NoAdapter {
                wanted: "a GPU".to_owned(),
                found: format!(
                    "{} alone, which is software; set {ALLOW_CPU}=1 to use it all the same",
                    description.name
                ),
            });
        }
        // What the adapter has where more is better, else the defaults.
        let has = adapter.limits();
        let limits = wgpu::Limits {
            max_buffer_size: has.max_buffer_size,
            max_storage_buffer_binding_size: has.max_storage_buffer_binding_size,
            ..wgpu::Limits::default()
        };
        let description_ = wgpu::DeviceDescriptor {
            label: Some("seqrs"),
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&description_))
            .map_err(|error| GpuError::Refused(error.to_string()))?;
        Ok(Self::of(device, queue, description))
    }

    /// A device that checks programs and computes nothing.
    #[cfg(test)]
    pub(crate) fn noop() -> Self {
        Self::noop_of(128 << 20)
    }

    /// One whose shaders see buffers of so many bytes, whether or not there is memory for them.
    #[cfg(test)]
    pub(crate) fn noop_of(largest_binding: u64) -> Self {
        let required_limits = wgpu::Limits {
            max_buffer_size: largest_binding,
            max_storage_buffer_binding_size: largest_binding,
            ..wgpu::Limits::default()
        };
        let (device, queue) =
            wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
        let description = Description {
            name: "none".to_owned(),
            driver: String::new(),
            api: "none".to_owned(),
            is_software: true,
            largest_binding,
        };
        Self::of(device, queue, description)
    }

    fn of(device: wgpu::Device, queue: wgpu::Queue, description: Description) -> Self {
        let lost = Arc::new(OnceLock::new());
        let told = Arc::clone(&lost);
        device.set_device_lost_callback(move |reason, words| {
            let _ = told.set(match reason {
                wgpu::DeviceLostReason::Destroyed => "it was destroyed".to_owned(),
                _ => words,
            });
        });
        let (state, released, trace) = Default::default();
        Self { device, queue, state, released, trace, lost, description }
    }

    /// Takes the device away, as a driver may at any moment: for tests of what comes then.
    #[doc(hidden)]
    pub fn lose(&self) {
        self.device.destroy();
        // It is told when the device has done what it was at.
        let _ = self.poll(wgpu::PollType::wait_indefinitely());
    }

    /// Whether it is gone. It does not come back; another [`Gpu`] of the same adapter may work.
    pub fn is_lost(&self) -> bool {
        self.check().is_err()
    }

    /// The adapter that it is of.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Whether the driver has said so.
    pub(crate) fn told_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// [`GpuError::DeviceLost`] if it is gone.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        // It is told to who asks.
        if !self.told_lost() {
            let _ = self.poll(wgpu::PollType::Poll);
        }
        match self.lost.get() {
            None => Ok(()),
            Some(reason) => Err(GpuError::DeviceLost(reason.clone())),
        }
    }
}
