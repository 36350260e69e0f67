//! Runs programs on a device of the `wgpu` crate.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use seqrs_core::{interrupt, memory};

use crate::device::{Gpu, GpuError, State};
use crate::pace::Pace;
use crate::pool;
use crate::program::{Access, BufferId, Command, Pipeline, Program};
use crate::recorder::{Numbers, Recorder, locked};
use crate::trace::Event;
use crate::turn::Turn;

/// Between two looks, while the device works, whether the caller wants to stop.
const LOOK: Duration = Duration::from_millis(20);

/// Multiplications of a dispatch on a device made of software: about a tenth of a second.
const SOFTWARE_WORK: usize = 1 << 26;

/// Pipelines that are kept for later programs.
const MOST_COMPILED: usize = 1024;

/// A pipeline on a device.
pub(crate) struct Compiled {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// All that a program needs before its first dispatch.
struct Ready {
    compiled: Vec<Arc<Compiled>>,
    /// The words of all dispatches, and where those of each command begin.
    params: Option<wgpu::Buffer>,
    offsets: Vec<u32>,
    /// Clears and writes buffers.
    first: wgpu::CommandEncoder,
}

/// Whether a wait for the device may be given up.
#[derive(Clone, Copy, PartialEq)]
enum Waits {
    /// Until the caller wants to stop.
    ForCaller,
    /// To the end.
    ToEnd,
}

impl Gpu {
    /// A recorder of programs for this device. When it is gone, programs that it gave out and
    /// that did not run may be refused, since their buffers go with it.
    pub fn recorder(&self) -> Recorder {
        let mut recorder = Recorder::with_largest_buffer(self.description().largest_binding);
        if self.description().is_software {
            recorder = recorder.with_most_work(SOFTWARE_WORK);
        }
        locked(&self.released).push(recorder.released());
        recorder
    }

    /// Runs a program to its end, or as far as the device takes it: what it has not done yet goes
    /// on while this returns.
    ///
    /// # Errors
    /// [`GpuError`]; the buffers that the program writes then have any contents. With
    /// [`GpuError::OutOfMemory`] nothing of it was done, with [`GpuError::Interrupted`] nothing of
    /// what begins at [`Program::whole_from`].
    pub fn run(&self, program: &Program) -> Result<(), GpuError> {
        self.check()?;
        let mut turn = self.state.wait(stops).ok_or(GpuError::Interrupted)?;
        self.run_in_turn(&mut turn.content, program)?;
        Ok(())
    }

    /// Runs what `recorder` has recorded since the last time. Of several threads that share a
    /// recorder each may run what another has recorded, but all in the order of recording.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_recorded(&self, recorder: &Recorder) -> Result<(), GpuError> {
        let mut turn = self.turn(recorder)?;
        self.run_in_turn(&mut turn.content, &recorder.program())?;
        Ok(())
    }

    /// A turn to run what `recorder` has recorded, which is forgotten if none comes.
    fn turn(&self, recorder: &Recorder) -> Result<Turn<'_, State>, GpuError> {
        if let Err(error) = self.check() {
            recorder.forget();
            return Err(error);
        }
        // Others need what they have recorded, and wait for this thread to run it.
        let turn = self.state.wait(|| stops() && recorder.forget());
        turn.ok_or(GpuError::Interrupted)
    }

    /// Says whether who waits for what it gives may still stop.
    fn run_in_turn(&self, state: &mut State, program: &Program) -> Result<Waits, GpuError> {
        self.trace.note(|| Event::Ran(program.clone()));
        let done = self.run_checked(state, program);
        match &done {
            Ok(_) | Err(GpuError::Interrupted) => {}
            Err(GpuError::Refused(_)) => {
                // They may be what is not valid.
                for pipeline in &program.pipelines {
                    state.compiled.remove(&pipeline.source);
                }
                self.unmake(state, program);
            }
            Err(_) => self.unmake(state, program),
        }
        self.release(state, program);
        done
    }

    fn run_checked(&self, state: &mut State, program: &Program) -> Result<Waits, GpuError> {
        self.fits(state, program)?;
        let bytes = || program.buffers.iter().map(|(_, bytes)| bytes).sum();
        // Whatever may be missing is asked for before the first dispatch changes anything.
        let ready = self.watched(bytes, || self.prepare(state, program))?;
        self.watched(bytes, || self.submit(state, program, ready))
    }

    /// What the driver says of `work`, which needs so many bytes.
    fn watched<R>(
        &self,
        bytes: impl FnOnce() -> u64,
        work: impl FnOnce() -> Result<R, GpuError>,
    ) -> Result<R, GpuError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let done = work();
        let [internal, validation, memory] =
            [internal, validation, memory].map(|scope| pollster::block_on(scope.pop()));
        self.check()?;
        if memory.is_some() {
            return Err(GpuError::OutOfMemory { what: "GPU memory", bytes: bytes() });
        }
        match validation.or(internal) {
            Some(error) => Err(self.refused(&error)),
            None => done,
        }
    }

    /// The error for what the driver refused. One that is about to be gone does so too.
    fn refused(&self, words: &dyn std::fmt::Display) -> GpuError {
        let timeout = Some(Duration::from_secs(1));
        let _ = self.poll(wgpu::PollType::Wait { submission_index: None, timeout });
        self.check().err().unwrap_or_else(|| GpuError::Refused(words.to_string()))
    }

    /// What the driver would not say in these words.
    fn fits(&self, state: &State, program: &Program) -> Result<(), GpuError> {
        let have = self.description().largest_binding;
        if let Some(&(_, need)) = program.buffers.iter().find(|(_, bytes)| *bytes > have) {
            let limit = "bytes of a buffer that a shader sees";
            return Err(GpuError::Unsupported { limit, need, have });
        }
        let made: HashSet<BufferId> = program.buffers.iter().map(|&(id, _)| id).collect();
        let most = self.device.limits().max_compute_workgroups_per_dimension;
        let known = |id: &BufferId| made.contains(id) || state.buffers.contains_key(id);
        for command in &program.commands {
            match command {
                Command::Write { to, .. } if !made.contains(to) => return Err(never_made()),
                Command::Write { .. } => {}
                Command::Dispatch { buffers, workgroups, .. } => {
                    if !buffers.iter().all(known) {
                        return Err(never_made());
                    }
                    if let Some(&need) = workgroups.iter().find(|&&need| need > most) {
                        let (need, have) = (need.into(), most.into());
                        let limit = "workgroups along an axis";
                        return Err(GpuError::Unsupported { limit, need, have });
                    }
                }
            }
        }
        Ok(())
    }

    fn prepare(&self, state: &mut State, program: &Program) -> Result<Ready, GpuError> {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        let mut first = self.device.create_command_encoder(&descriptor);
        self.make(state, program, &mut first);
        let (params, offsets) = self.write(state, program, &mut first)?;
        let compiled =
            program.pipelines.iter().map(|pipeline| self.compiled(state, pipeline)).collect();
        // Each number that a cell was given makes another shader, and there is no end of them.
        if state.compiled.len() > MOST_COMPILED {
            let needed: HashSet<&str> =
                program.pipelines.iter().map(|pipeline| &*pipeline.source).collect();
            state.compiled.retain(|source, _| needed.contains(&**source));
        }
        Ok(Ready { compiled, params, offsets, first })
    }

    /// Makes the program's buffers, of those that were used before where there are some.
    fn make(&self, state: &mut State, program: &Program, encoder: &mut wgpu::CommandEncoder) {
        let most = self.description().largest_binding;
        let blank: HashSet<BufferId> = program.blank.iter().copied().collect();
        for &(id, bytes) in &program.buffers {
            let size = pool::rounded(bytes, most);
            let buffer = match state.pool.take(size) {
                Some(buffer) => {
                    if !blank.contains(&id) {
                        encoder.clear_buffer(&buffer, 0, None);
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
    }

    /// Forgets the program's buffers: some may not be there, and whoever needs memory needs that
    /// of the others, and of what is kept.
    fn unmake(&self, state: &mut State, program: &Program) {
        let gone = program.buffers.iter().filter_map(|(id, _)| state.buffers.remove(id));
        let bytes = gone.map(|buffer| buffer.size()).sum();
        state.pool.clear(bytes);
    }

    /// Writes what the program writes, and the words of all its dispatches, which it gives with
    /// where those of each command begin. That is done before any of the dispatches: a program
    /// writes to buffers of its own, from the start, before it uses them, and so no submission has
    /// to end for it. All of it goes through one buffer.
    fn write(
        &self,
        state: &State,
        program: &Program,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<(Option<wgpu::Buffer>, Vec<u32>), GpuError> {
        let align = self.device.limits().min_uniform_buffer_offset_alignment as usize;
        let (mut written, mut words) = (0, 0);
        let mut offsets = Vec::with_capacity(program.commands.len());
        for command in &program.commands {
            offsets.push(words as u32);
            match command {
                Command::Write { bytes, .. } => written += bytes.len(),
                Command::Dispatch { params, .. } => {
                    words += (4 * params.len()).next_multiple_of(align);
                }
            }
        }
        if program.commands.is_empty() {
            return Ok((None, offsets));
        }
        // The last binding is as long as any.
        words += align;
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let staging = self.transfer("written", (written + words) as u64, usage)?;
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniform = self.transfer("params", words as u64, usage)?;
        // Without it, what the driver has said tells why.
        if let Ok(mut mapped) = staging.get_mapped_range_mut(..) {
            let mut at = 0;
            for command in &program.commands {
                if let Command::Write { to, bytes } = command {
                    mapped.slice(at..at + bytes.len()).copy_from_slice(bytes);
                    let (buffer, len) = (&state.buffers[to], bytes.len() as u64);
                    encoder.copy_buffer_to_buffer(&staging, at as u64, buffer, 0, len);
                    at += bytes.len();
                }
            }
            for (command, &offset) in program.commands.iter().zip(&offsets) {
                if let Command::Dispatch { params, .. } = command {
                    let (bytes, at) = (bytemuck::cast_slice(params), at + offset as usize);
                    mapped.slice(at..at + bytes.len()).copy_from_slice(bytes);
                }
            }
            let len = words as u64;
            encoder.copy_buffer_to_buffer(&staging, written as u64, &uniform, 0, len);
        }
        staging.unmap();
        Ok((Some(uniform), offsets))
    }

    /// A buffer on the way to the device or back from it; one that is for writing is mapped.
    fn transfer(
        &self,
        label: &'static str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, GpuError> {
        let have = self.device.limits().max_buffer_size.min(u32::MAX.into());
        if size > have {
            let limit = "bytes that go to it or come from it at once";
            return Err(GpuError::Unsupported { limit, need: size, have });
        }
        Ok(self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: usage.contains(wgpu::BufferUsages::MAP_WRITE),
        }))
    }

    /// Submits the dispatches, and asks before each submission whether to stop. No more than two
    /// are on their way, so what goes on after a stop is short.
    fn submit(&self, state: &State, program: &Program, ready: Ready) -> Result<Waits, GpuError> {
        let Ready { compiled, params, offsets, first } = ready;
        let mut first = Some(first.finish());
        let Some(params) = params else {
            self.queue.submit(first);
            return Ok(Waits::ForCaller);
        };
        let mut before: Option<wgpu::SubmissionIndex> = None;
        let mut groups: HashMap<(usize, &[BufferId]), wgpu::BindGroup> = HashMap::new();
        // What was written stands before the first of them.
        let mut dispatches = program.commands.iter().zip(offsets).enumerate().peekable();
        let (mut pace, mut last) = (Pace::new(self.description().is_software), 0);
        let mut waits = if program.is_shared { Waits::ToEnd } else { Waits::ForCaller };
        while dispatches.peek().is_some() {
            if waits == Waits::ForCaller && stops() {
                return Err(GpuError::Interrupted);
            }
            let (began, mut count) = (Instant::now(), 0);
            let mut encoder =
                self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            while count < pace.dispatches()
                && let Some((at, (command, offset))) = dispatches.next()
            {
                let Command::Dispatch { pipeline, buffers, workgroups: [x, y, z], .. } = command
                else {
                    continue;
                };
                if program.whole_from.is_some_and(|from| at >= from) {
                    waits = Waits::ToEnd;
                }
                let compiled = &compiled[*pipeline];
                let group = groups
                    .entry((*pipeline, buffers))
                    .or_insert_with(|| self.bind(state, compiled, buffers, &params));
                pass.set_pipeline(&compiled.pipeline);
                pass.set_bind_group(0, &*group, &[offset]);
                pass.dispatch_workgroups(*x, *y, *z);
                count += 1;
            }
            drop(pass);
            let this = self.queue.submit(first.take().into_iter().chain([encoder.finish()]));
            if let Some(before) = before.replace(this) {
                self.wait(&before, waits)?;
            }
            // Some devices compute in `submit`, others have done the submission before this one.
            pace.took(count.min(last.max(1)), began.elapsed());
            last = count;
        }
        Ok(waits)
    }

    /// Waits until the device has done a submission.
    fn wait(&self, index: &wgpu::SubmissionIndex, waits: Waits) -> Result<(), GpuError> {
        loop {
            if waits == Waits::ForCaller && stops() {
                return Err(GpuError::Interrupted);
            }
            let submission_index = Some(index.clone());
            match self.poll(wgpu::PollType::Wait { submission_index, timeout: Some(LOOK) }) {
                Ok(_) => return self.check(),
                Err(wgpu::PollError::Timeout) => self.check()?,
                Err(error) => return Err(self.refused(&error)),
            }
        }
    }

    /// As [`wgpu::Device::poll`], which panics where the device is lost while it waits.
    pub(crate) fn poll(&self, what: wgpu::PollType) -> Result<wgpu::PollStatus, wgpu::PollError> {
        catch_unwind(AssertUnwindSafe(|| self.device.poll(what))).unwrap_or_else(|panic| match self
            .told_lost()
        {
            true => Ok(wgpu::PollStatus::Poll),
            false => resume_unwind(panic),
        })
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
        let none = |error| {
            recorder.forget();
            error
        };
        // What may be missing is asked for before anything is done.
        let (mut all, results) = self.room(wanted).map_err(none)?;
        let mut turn = self.turn(recorder)?;
        let waits = self.run_in_turn(&mut turn.content, &recorder.program())?;
        let Some(results) = results else { return Ok(all) };
        let index =
            self.watched(|| results.size(), || self.copy(&turn.content, wanted, &results))?;
        drop(turn);
        let slice = results.slice(..);
        let (done, told) = std::sync::mpsc::channel();
        self.watched(
            || 0,
            || {
                slice.map_async(wgpu::MapMode::Read, move |result| {
                    // Who waited may have given up.
                    let _ = done.send(result);
                });
                Ok(())
            },
        )?;
        self.wait(&index, waits)?;
        told.recv().map_err(|error| self.refused(&error))?.map_err(|error| self.refused(&error))?;
        let mapped = slice.get_mapped_range().map_err(|error| self.refused(&error))?;
        let mut numbers: &[f32] = bytemuck::cast_slice(&mapped);
        for (wanted, found) in wanted.iter().zip(&mut all) {
            let (these, rest) = numbers.split_at(wanted.len());
            found.extend_from_slice(these);
            numbers = rest;
            self.trace.note(|| Event::Gave(wanted.id(), found.clone()));
        }
        Ok(all)
    }

    /// Room for these numbers here, and a buffer for the way from the device if there are any.
    fn room(&self, wanted: &[&Numbers]) -> Result<Room, GpuError> {
        let total: u64 = wanted.iter().map(|numbers| 4 * numbers.len() as u64).sum();
        let room = |numbers: &&Numbers| memory::room("results", numbers.len());
        let here = wanted.iter().map(room).collect::<Result<_, _>>();
        let here =
            here.map_err(|_| GpuError::OutOfMemory { what: "results of the GPU", bytes: total })?;
        if total == 0 {
            return Ok((here, None));
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let results = self.watched(|| total, || self.transfer("results", total, usage))?;
        Ok((here, Some(results)))
    }

    /// Copies these numbers one after the other.
    fn copy(
        &self,
        state: &State,
        wanted: &[&Numbers],
        to: &wgpu::Buffer,
    ) -> Result<wgpu::SubmissionIndex, GpuError> {
        let mut encoder =
            self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for numbers in wanted.iter().filter(|numbers| !numbers.is_empty()) {
            let bytes = 4 * numbers.len() as u64;
            let buffer = state.buffers.get(&numbers.id()).ok_or_else(never_made)?;
            encoder.copy_buffer_to_buffer(buffer, 0, to, at, bytes);
            at += bytes;
        }
        Ok(self.queue.submit([encoder.finish()]))
    }

    /// Releases what a program says, and what recorders that are gone have left.
    fn release(&self, state: &mut State, program: &Program) {
        let State { buffers, pool, .. } = state;
        let mut remove = |ids: &[BufferId]| {
            ids.iter().filter_map(|id| buffers.remove(id)).for_each(|buffer| pool.keep(buffer));
        };
        remove(&program.released);
        locked(&self.released).retain(|released| {
            // A recorder has it, and so has each buffer that is still held.
            let is_held = Arc::strong_count(released) > 1;
            if released.is_abandoned() || !is_held {
                remove(&released.take());
            }
            is_held
        });
    }
}

/// Room for results, and a buffer for them if there are any.
type Room = (Vec<Vec<f32>>, Option<wgpu::Buffer>);

/// Whether the caller wants to stop.
fn stops() -> bool {
    interrupt::check().is_err()
}

/// The program that was to make a buffer failed, or ran elsewhere.
fn never_made() -> GpuError {
    GpuError::Refused("a buffer that no program made on this device".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::MutexGuard;

    use seqrs_core::backend::Backend;

    use super::*;

    fn state(gpu: &Gpu) -> MutexGuard<'_, State> {
        gpu.state.wait(|| false).unwrap().content
    }

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
            held.push(state(&gpu).buffers.len());
        }
        assert!(held.iter().all(|&count| count <= 3), "{held:?}");
    }

    #[test]
    fn there_are_only_so_many_pipelines() {
        let gpu = Gpu::noop();
        let program = |k: usize| {
            let source = format!("@compute @workgroup_size(1) fn main() {{ let k = {k}u; }}");
            let pipeline = Pipeline { label: String::new(), source, bindings: vec![] };
            Program { pipelines: vec![pipeline], ..Default::default() }
        };
        for k in 0..2 * MOST_COMPILED {
            gpu.run(&program(k)).unwrap();
            let compiled = &state(&gpu).compiled;
            assert!(compiled.len() <= MOST_COMPILED);
            assert!(compiled.contains_key(&program(k).pipelines[0].source));
        }
    }

    /// Submissions so far, and one more.
    #[cfg(target_os = "linux")]
    fn submissions(gpu: &Gpu) -> u64 {
        let words = format!("{:?}", gpu.queue.submit([]));
        let digits: String = words.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("the number of a submission")
    }

    /// One of some buffers cannot be had, in a process with less memory than it needs.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_there_is_no_memory_for_is_not_made_at_all() {
        const LITTLE: &str = "SEQRS_TEST_HAS_LITTLE_MEMORY";
        if std::env::var_os(LITTLE).is_none() {
            let test = "executor::tests::what_there_is_no_memory_for_is_not_made_at_all";
            let mut limited = std::process::Command::new("sh");
            limited.args(["-c", "ulimit -v 1500000 && exec \"$0\" --exact \"$1\""]);
            limited.arg(std::env::current_exe().unwrap()).arg(test).env(LITTLE, "1");
            let output = limited.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        const LARGE: usize = (1 << 29) - 256;
        let gpu = Gpu::noop_of(4 * LARGE as u64);
        let recorder = gpu.recorder();
        let ones = recorder.numbers(&[1.0; 300]);
        let sum = recorder.times(&ones, &ones).unwrap();
        gpu.read(&recorder, &sum).unwrap();
        for _ in 0..3 {
            let sum = recorder.times(&ones, &ones).unwrap();
            let large = recorder.zeros_of(LARGE);
            let before = submissions(&gpu);
            let error = gpu.run_recorded(&recorder).unwrap_err();
            assert!(
                matches!(error, GpuError::OutOfMemory { what: "GPU memory", bytes }
                    if bytes > 4 * LARGE as u64),
                "{error}"
            );
            assert_eq!(submissions(&gpu), before + 1, "some of it was done");
            drop((large, sum));
            let turn = gpu.state.wait(|| false).unwrap();
            // No more is kept than what the program was to release.
            let State { buffers, pool, .. } = &*turn.content;
            assert!(buffers.len() == 2 && pool.kept() <= 1);
            drop(turn);
            // What there was before is there, and what is small can be had.
            let again = recorder.times(&ones, &ones).unwrap();
            gpu.read(&recorder, &again).unwrap();
        }
        let results = recorder.blank_of(LARGE);
        let error = gpu.read(&recorder, &results).unwrap_err();
        assert!(matches!(error, GpuError::OutOfMemory { what: "results of the GPU", .. }));
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
            assert_eq!(state(&gpu).buffers.len(), 2);
            drop((ones, sum));
            gpu.run(&Program::default()).unwrap();
            let released = locked(&gpu.released).len();
            assert_eq!((state(&gpu).buffers.len(), released), (0, 0));
        }
    }
}
