//! Runs programs on a device of the `wgpu` crate.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::device::{Gpu, GpuError, State};
use crate::pool;
use crate::program::{Access, BufferId, Command, Pipeline, Program};
use crate::recorder::{Numbers, Recorder, locked};
use crate::trace::Event;

/// Dispatches of a submission: while the device does these, the next are recorded.
const SUBMISSION: usize = 256;

/// A pipeline on a device.
pub(crate) struct Compiled {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Gpu {
    /// A recorder of programs for this device. When it is gone, programs that it gave out and
    /// that did not run may be refused, since their buffers go with it.
    pub fn recorder(&self) -> Recorder {
        let recorder = Recorder::with_largest_buffer(self.description().largest_binding);
        let mut state = locked(&self.state);
        state.released.push(recorder.released());
        recorder
    }

    /// Runs a program to its end, or as far as the device takes it: what it has not done yet goes
    /// on while this returns.
    ///
    /// # Errors
    /// [`GpuError`]; the buffers then have any contents.
    pub fn run(&self, program: &Program) -> Result<(), GpuError> {
        self.check()?;
        let mut state = locked(&self.state);
        self.run_locked(&mut state, program)
    }

    /// Runs what `recorder` has recorded since the last time. Of several threads that share a
    /// recorder each may run what another has recorded, but all in the order of recording.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_recorded(&self, recorder: &Recorder) -> Result<(), GpuError> {
        self.check()?;
        let mut state = locked(&self.state);
        let program = recorder.program();
        self.run_locked(&mut state, &program)
    }

    fn run_locked(&self, state: &mut State, program: &Program) -> Result<(), GpuError> {
        if let Err(error) = self.fits(state, program) {
            state.release(program);
            return Err(error);
        }
        self.trace.note(|| Event::Ran(program.clone()));
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        self.run_checked(state, program);
        state.release(program);
        let [internal, validation, memory] =
            [internal, validation, memory].map(|scope| pollster::block_on(scope.pop()));
        self.check()?;
        if memory.is_some() {
            let bytes = program.buffers.iter().map(|(_, bytes)| bytes).sum();
            return Err(GpuError::OutOfMemory { bytes });
        }
        if let Some(error) = validation.or(internal) {
            // They may be what is not valid.
            for pipeline in &program.pipelines {
                state.compiled.remove(&pipeline.source);
            }
            return Err(GpuError::Refused(error.to_string()));
        }
        Ok(())
    }

    /// What the driver would not say in these words.
    fn fits(&self, state: &State, program: &Program) -> Result<(), GpuError> {
        let have = self.description().largest_binding;
        if let Some(&(_, need)) = program.buffers.iter().find(|(_, bytes)| *bytes > have) {
            let limit = "bytes of a buffer that a shader sees";
            return Err(GpuError::Unsupported { limit, need, have });
        }
        let made: HashSet<BufferId> = program.buffers.iter().map(|&(id, _)| id).collect();
        let known = |id: &BufferId| made.contains(id) || state.buffers.contains_key(id);
        let known = program.commands.iter().all(|command| match command {
            Command::Write { to, .. } => made.contains(to),
            Command::Dispatch { buffers, .. } => buffers.iter().all(known),
        });
        if known { Ok(()) } else { Err(never_made()) }
    }

    fn run_checked(&self, state: &mut State, program: &Program) {
        self.make(state, program);
        self.write_first(state, program);
        let compiled: Vec<_> =
            program.pipelines.iter().map(|pipeline| self.compiled(state, pipeline)).collect();
        let (params, offsets) = self.params(program);
        let mut groups: HashMap<(usize, &[BufferId]), wgpu::BindGroup> = HashMap::new();
        for (commands, offsets) in
            program.commands.chunks(SUBMISSION).zip(offsets.chunks(SUBMISSION))
        {
            let mut encoder = None;
            for (command, &offset) in commands.iter().zip(offsets) {
                match command {
                    // It was written before the first of them.
                    Command::Write { .. } => {}
                    Command::Dispatch { pipeline, buffers, workgroups: [x, y, z], .. } => {
                        let compiled = &compiled[*pipeline];
                        let group = groups
                            .entry((*pipeline, buffers))
                            .or_insert_with(|| self.bind(state, compiled, buffers, &params));
                        let encoder: &mut Recording = encoder.get_or_insert_with(|| {
                            let descriptor = wgpu::CommandEncoderDescriptor::default();
                            let mut encoder = self.device.create_command_encoder(&descriptor);
                            let pass = encoder
                                .begin_compute_pass(&wgpu::ComputePassDescriptor::default())
                                .forget_lifetime();
                            Recording { encoder, pass }
                        });
                        encoder.pass.set_pipeline(&compiled.pipeline);
                        encoder.pass.set_bind_group(0, &*group, &[offset]);
                        encoder.pass.dispatch_workgroups(*x, *y, *z);
                    }
                }
            }
            self.submit(encoder);
        }
    }

    /// Makes the program's buffers, of those that were used before where there are some.
    fn make(&self, state: &mut State, program: &Program) {
        let most = self.description().largest_binding;
        let blank: HashSet<BufferId> = program.blank.iter().copied().collect();
        let mut clear: Option<wgpu::CommandEncoder> = None;
        for &(id, bytes) in &program.buffers {
            let size = pool::rounded(bytes, most);
            let buffer = match state.pool.take(size) {
                Some(buffer) => {
                    if !blank.contains(&id) {
                        let descriptor = wgpu::CommandEncoderDescriptor::default();
                        clear
                            .get_or_insert_with(|| self.device.create_command_encoder(&descriptor))
                            .clear_buffer(&buffer, 0, None);
                    }
                    buffer
                }
                // The driver's are full of zeros.
                None => self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: None,
                    size,
                    usage: wgpu::BufferUsages::STORAGE
                        | wgpu::BufferUsages::COPY_SRC
                        | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                }),
            };
            state.pool.lend(buffer.size());
            state.buffers.insert(id, buffer);
        }
        if let Some(clear) = clear {
            self.queue.submit([clear.finish()]);
        }
    }

    /// Writes what the program writes. That is done before any of its dispatches: it writes to
    /// buffers of its own, from the start, before it uses them, and so no submission has to end
    /// for it.
    fn write_first(&self, state: &State, program: &Program) {
        for command in &program.commands {
            if let Command::Write { to, bytes } = command {
                self.queue.write_buffer(&state.buffers[to], 0, bytes);
            }
        }
    }

    fn submit(&self, recording: Option<Recording>) {
        if let Some(Recording { encoder, pass }) = recording {
            drop(pass);
            self.queue.submit([encoder.finish()]);
        }
    }

    /// The words of all dispatches in one buffer, and where those of each command begin.
    fn params(&self, program: &Program) -> (wgpu::Buffer, Vec<u32>) {
        let align = self.device.limits().min_uniform_buffer_offset_alignment as usize;
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(program.commands.len());
        for command in &program.commands {
            offsets.push(bytes.len() as u32);
            if let Command::Dispatch { params, .. } = command {
                bytes.extend_from_slice(bytemuck::cast_slice(params));
                bytes.resize(bytes.len().next_multiple_of(align), 0);
            }
        }
        // The last binding is as long as any.
        bytes.resize(bytes.len() + align, 0);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, &bytes);
        (buffer, offsets)
    }

    fn compiled(&self, state: &mut State, pipeline: &Pipeline) -> Arc<Compiled> {
        if let Some(compiled) = state.compiled.get(&pipeline.source) {
            return Arc::clone(compiled);
        }
        let label = Some(&*pipeline.label);
        let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty,
            count: None,
        };
        let params = entry(
            0,
            wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
        );
        let storage = pipeline.bindings.iter().enumerate().map(|(k, binding)| {
            let read_only = binding.access == Access::Read;
            entry(
                k + 1,
                wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
            )
        });
        let entries: Vec<_> = std::iter::once(params).chain(storage).collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries,
        });
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label,
            source: wgpu::ShaderSource::Wgsl((&*pipeline.source).into()),
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let compiled = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every shader writes what it reads.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let compiled = Arc::new(Compiled { pipeline: compiled, layout });
        state.compiled.insert(pipeline.source.clone(), Arc::clone(&compiled));
        compiled
    }

    fn bind(
        &self,
        state: &State,
        compiled: &Compiled,
        buffers: &[BufferId],
        params: &wgpu::Buffer,
    ) -> wgpu::BindGroup {
        let align = self.device.limits().min_uniform_buffer_offset_alignment;
        let words = wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: params,
                offset: 0,
                size: wgpu::BufferSize::new(u64::from(align)),
            }),
        };
        let storage = buffers.iter().enumerate().map(|(k, id)| wgpu::BindGroupEntry {
            binding: k as u32 + 1,
            resource: state.buffers[id].as_entire_binding(),
        });
        let entries: Vec<_> = std::iter::once(words).chain(storage).collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &compiled.layout,
            entries: &entries,
        })
    }

    /// Runs what `recorder` has recorded, and gives the contents of a buffer.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn read(&self, recorder: &Recorder, numbers: &Numbers) -> Result<Vec<f32>, GpuError> {
        Ok(self.read_all(recorder, &[numbers])?.swap_remove(0))
    }

    /// As [`read`](Self::read), for several buffers, with one wait for the device.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn read_all(
        &self,
        recorder: &Recorder,
        wanted: &[&Numbers],
    ) -> Result<Vec<Vec<f32>>, GpuError> {
        self.run_recorded(recorder)?;
        let ends: Vec<usize> = wanted
            .iter()
            .scan(0, |end, numbers| {
                *end += numbers.len();
                Some(*end)
            })
            .collect();
        let total = ends.last().copied().unwrap_or(0);
        if total == 0 {
            return Ok(vec![Vec::new(); wanted.len()]);
        }
        let refused = |error: &dyn std::fmt::Display| GpuError::Refused(error.to_string());
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("results"),
            size: 4 * total as u64,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let state = locked(&self.state);
            for (numbers, end) in
                wanted.iter().zip(&ends).filter(|(numbers, _)| !numbers.is_empty())
            {
                let bytes = 4 * numbers.len() as u64;
                let to = 4 * *end as u64 - bytes;
                let buffer = state.buffers.get(&numbers.id()).ok_or_else(never_made)?;
                encoder.copy_buffer_to_buffer(buffer, 0, &staging, to, bytes);
            }
        }
        self.queue.submit([encoder.finish()]);
        let slice = staging.slice(..);
        let (done, wait) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // Who waited may have given up.
            let _ = done.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| refused(&error))?;
        wait.recv().map_err(|error| refused(&error))?.map_err(|error| refused(&error))?;
        self.check()?;
        let mapped = slice.get_mapped_range().map_err(|error| refused(&error))?;
        let all: &[f32] = bytemuck::cast_slice(&mapped);
        let part = |(numbers, end): (&&Numbers, &usize)| all[end - numbers.len()..*end].to_vec();
        let found: Vec<Vec<f32>> = wanted.iter().zip(&ends).map(part).collect();
        for (numbers, found) in wanted.iter().zip(&found) {
            self.trace.note(|| Event::Gave(numbers.id(), found.clone()));
        }
        Ok(found)
    }
}

impl State {
    /// Releases what a program says, and what recorders that are gone have left.
    fn release(&mut self, program: &Program) {
        let Self { buffers, pool, released, .. } = self;
        let mut remove = |ids: &[BufferId]| {
            ids.iter().filter_map(|id| buffers.remove(id)).for_each(|buffer| pool.keep(buffer));
        };
        remove(&program.released);
        released.retain(|released| {
            // A recorder has it, and so has each buffer that is still held.
            let is_held = Arc::strong_count(released) > 1;
            if released.is_abandoned() || !is_held {
                remove(&released.take());
            }
            is_held
        });
    }
}

/// The program that was to make a buffer failed, or ran elsewhere.
fn never_made() -> GpuError {
    GpuError::Refused("a buffer that no program made on this device".to_owned())
}

/// A pass that dispatches are being recorded into.
struct Recording {
    encoder: wgpu::CommandEncoder,
    pass: wgpu::ComputePass<'static>,
}

#[cfg(test)]
mod tests {
    use seqrs_core::backend::Backend;

    use super::*;

    /// Needs no driver, so it runs everywhere.
    #[test]
    fn buffers_go_with_what_they_were_made_for() {
        let gpu = Gpu::noop();
        let recorder = gpu.recorder();
        let ones = recorder.numbers(&[1.0; 3]);
        let mut held = Vec::new();
        for _ in 0..50 {
            let sum = recorder.times(&ones, &ones).unwrap();
            gpu.read(&recorder, &sum).unwrap();
            held.push(gpu.state.lock().unwrap().buffers.len());
        }
        assert!(held.iter().all(|&count| count <= 3), "{held:?}");
    }

    #[test]
    fn threads_that_share_a_recorder_lose_nothing() {
        let gpu = Gpu::noop();
        let recorder = gpu.recorder();
        // So many that a thread is likely to be put off while it copies them.
        let many = vec![1.0; 1 << 20];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let ones = recorder.numbers(&many);
                        let sum = recorder.times(&ones, &ones).unwrap();
                        gpu.read(&recorder, &sum).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn buffers_go_with_their_recorder() {
        let gpu = Gpu::noop();
        for _ in 0..50 {
            let recorder = gpu.recorder();
            let ones = recorder.numbers(&[1.0; 3]);
            let sum = recorder.times(&ones, &ones).unwrap();
            gpu.read(&recorder, &sum).unwrap();
            // What outlives its recorder is kept until it goes.
            drop(recorder);
            gpu.run(&Program::default()).unwrap();
            assert_eq!(gpu.state.lock().unwrap().buffers.len(), 2);
            drop((ones, sum));
            gpu.run(&Program::default()).unwrap();
            let state = gpu.state.lock().unwrap();
            assert_eq!((state.buffers.len(), state.released.len()), (0, 0));
        }
    }
}
