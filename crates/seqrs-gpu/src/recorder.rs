//! A backend that writes down what is to be computed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use seqrs_core::Error;
use seqrs_core::backend::{Backend, Backward, Forward};
use seqrs_core::rows::{Place, Rows};
use seqrs_core::spec::Shape;
use seqrs_core::steps::Steps;

use crate::kernels::Kernel;
use crate::params::NONE;
use crate::pieces::{self, Piece};
use crate::program::{BufferId, Command, Program};
use crate::released::Released;
use crate::row_kernels::{self, RowKernel, by_column, by_number};
use crate::rows::Normal;
use crate::rules::Rules;
use crate::{backward, forward};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Numbers in a buffer of a device. When they go, the program that is being recorded may use the
/// buffer again, if it makes it, and else releases it.
#[derive(Debug)]
pub struct Numbers {
    id: BufferId,
    len: usize,
    released: Arc<Released>,
}

impl Numbers {
    /// The buffer.
    pub fn id(&self) -> BufferId {
        self.id
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none. (The buffer has room for one all the same.)
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        self.released.push(self.id);
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parameters of one direction of one layer: where they lie, in the order of
/// [`seqrs_core::spec::Spec::parameters`].
#[derive(Debug)]
pub struct Weights {
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) at: usize,
}

impl Weights {
    /// Those that begin at this place of a buffer, which may have others too.
    pub fn new(numbers: Arc<Numbers>, at: usize) -> Self {
        Self { numbers, at }
    }
}

/// What one direction of a layer keeps for the way back.
#[derive(Debug)]
pub struct Record {
    /// For each item the values that the cell saved and the state before the step, H each, and
    /// what its norms keep ([`pieces::record_width`]): a buffer for each piece of the steps, which
    /// forward makes.
    pub(crate) items: Vec<Numbers>,
    /// With zoneout, for each item the shares of its states that stayed, and the states that the
    /// step gave: a buffer for each piece.
    pub(crate) mixed: Vec<Numbers>,
    /// For each piece the norm of x W_ih^T, of a normalised cell.
    pub(crate) inputs: Vec<Normal>,
    /// For each row the final state, H each.
    pub(crate) last: Numbers,
}

impl Record {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        let items = self.items.iter().chain(&self.mixed).map(Numbers::len).sum::<usize>();
        let inputs = self.inputs.iter().map(Normal::len).sum::<usize>();
        items + inputs + self.last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes down a computation. What it gives out are names of buffers, which a device fills when
/// it runs the program.
#[derive(Debug)]
pub struct Recorder {
    recorded: Mutex<Recorded>,
    released: Arc<Released>,
    largest_buffer: u64,
    pub(crate) rules: Rules,
    /// Multiplications of a dispatch.
    pub(crate) most_work: usize,
}

#[derive(Debug, Default)]
struct Recorded {
    program: Program,
    /// Who has recorded it.
    by: Option<ThreadId>,
    pipelines: HashMap<Kernel, usize>,
    /// Bytes of the buffers that the program makes and does not write as a whole: once nobody
    /// needs what is in them they may take other numbers.
    reusable: HashMap<BufferId, u64>,
    /// The pieces of the steps that were last asked for.
    pieces: Option<CutSteps>,
}

#[derive(Debug)]
struct CutSteps {
    steps: Steps,
    width: usize,
    pieces: Arc<[Piece]>,
}

/// Bytes of a buffer for so many numbers. It has room for one at least.
fn bytes_of(len: usize) -> u64 {
    4 * len.max(1) as u64
}

/// Bytes of a buffer that a shader sees on every device.
const LARGEST_BUFFER: u64 = 128 << 20;

impl Default for Recorder {
    fn default() -> Self {
        Self::with_largest_buffer(LARGEST_BUFFER)
    }
}

impl Recorder {
    /// With nothing recorded, for any device.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a device whose shaders see buffers of at most so many bytes: what a layer keeps for
    /// every step is cut into buffers of that size. The bits do not depend on it.
    pub fn with_largest_buffer(bytes: u64) -> Self {
        Self {
            recorded: Mutex::default(),
            released: Arc::default(),
            largest_buffer: bytes,
            rules: Rules::default(),
            most_work: usize::MAX,
        }
    }

    /// With other choices of kernels. The bits do not depend on them.
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// For a slow device: what is large is cut so that a dispatch multiplies about so often, since
    /// no dispatch can be stopped. The bits do not depend on it.
    pub fn with_most_work(mut self, multiplications: usize) -> Self {
        self.most_work = multiplications;
        self
    }

    /// Steps of so many multiplications that a dispatch has at most: on a GPU some milliseconds.
    pub(crate) fn steps_at_once(&self, multiplications: usize) -> usize {
        (self.most_work / multiplications.max(1)).clamp(1, 4096)
    }

    /// What nobody needs any more of what it recorded.
    pub(crate) fn released(&self) -> Arc<Released> {
        Arc::clone(&self.released)
    }

    /// What was recorded since the last program, which a device has to run before the next.
    pub fn program(&self) -> Program {
        // First what nobody needs any more: whatever uses it has been recorded by now.
        let released = self.released.take();
        // All of the rest: should this program fail, the next needs nothing that it was to make.
        let recorded = std::mem::take(&mut *locked(&self.recorded));
        drop(recorded.pieces);
        Program { released, ..recorded.program }
    }

    /// Forgets what was recorded since the last program; false if others have recorded some of it.
    pub(crate) fn forget(&self) -> bool {
        let mut recorded = locked(&self.recorded);
        if recorded.program.is_shared {
            return false;
        }
        let forgotten = std::mem::take(&mut *recorded);
        drop(recorded);
        drop(forgotten);
        true
    }

    /// What is recorded from here on, to the end of the program, is done wholly or not at all.
    pub fn begin_whole(&self) {
        let Recorded { program, .. } = &mut *locked(&self.recorded);
        program.whole_from.get_or_insert(program.commands.len());
    }

    /// A buffer with these numbers.
    pub fn numbers(&self, numbers: &[f32]) -> Box<Numbers> {
        Box::new(self.written(bytemuck::cast_slice(numbers), numbers.len()))
    }

    /// A buffer of `len` zeros.
    pub fn zeros_of(&self, len: usize) -> Box<Numbers> {
        Box::new(self.buffer(len))
    }

    /// A buffer of `len` numbers, whatever they are, for who writes each before it is read.
    pub fn blank_of(&self, len: usize) -> Box<Numbers> {
        Box::new(self.blank_buffer(len))
    }

    /// All numbers of one buffer to another of the same length.
    pub fn copy_numbers(&self, from: &Numbers, to: &Numbers) {
        debug_assert_eq!(from.len(), to.len());
        self.copy_rows(1, from.len(), (from, 0, 0), (to, 0, 0));
    }

    /// A buffer with these indices.
    pub(crate) fn table(&self, indices: &[u32]) -> Numbers {
        self.written(bytemuck::cast_slice(indices), indices.len())
    }

    fn written(&self, bytes: &[u8], len: usize) -> Numbers {
        let Recorded { program, .. } = &mut *self.recording();
        let numbers = self.fresh(program, len);
        program.blank.push(numbers.id);
        if !bytes.is_empty() {
            program.commands.push(Command::Write { to: numbers.id, bytes: bytes.to_vec() });
        }
        numbers
    }

    /// A buffer of `len` zeros.
    pub(crate) fn buffer(&self, len: usize) -> Numbers {
        let Recorded { program, reusable, .. } = &mut *self.recording();
        let numbers = self.fresh(program, len);
        reusable.insert(numbers.id, bytes_of(len));
        numbers
    }

    /// A buffer of `len` numbers, whatever they are: each is written before it is read.
    pub(crate) fn blank_buffer(&self, len: usize) -> Numbers {
        let Recorded { program, reusable, .. } = &mut *self.recording();
        // Up to twice as large, so that small ones do not keep large ones from each other.
        let fits = |&bytes: &u64| (bytes_of(len)..=2 * bytes_of(len)).contains(&bytes);
        // What reads or writes the numbers that were there has been recorded by now.
        if let Some(id) = self.released.take_back(|id| reusable.get(&id).copied().filter(fits)) {
            return Numbers { id, len, released: Arc::clone(&self.released) };
        }
        let numbers = self.fresh(program, len);
        program.blank.push(numbers.id);
        reusable.insert(numbers.id, bytes_of(len));
        numbers
    }

    /// What is being recorded, of which this thread records some more.
    fn recording(&self) -> MutexGuard<'_, Recorded> {
        let mut recorded = locked(&self.recorded);
        let this = thread::current().id();
        let others = *recorded.by.get_or_insert(this) != this;
        recorded.program.is_shared |= others;
        recorded
    }

    /// A buffer that nobody has had before.
    fn fresh(&self, program: &mut Program, len: usize) -> Numbers {
        let id = BufferId(NEXT.fetch_add(1, Ordering::Relaxed));
        program.buffers.push((id, bytes_of(len)));
        Numbers { id, len, released: Arc::clone(&self.released) }
    }

    /// Runs `kernel`.
    pub(crate) fn dispatch(
        &self,
        kernel: Kernel,
        buffers: &[&Numbers],
        params: Vec<u32>,
        workgroups: [usize; 3],
    ) {
        if workgroups.contains(&0) {
            return;
        }
        let Recorded { program, pipelines, .. } = &mut *self.recording();
        let pipeline = *pipelines.entry(kernel).or_insert_with(|| {
            program.pipelines.push(kernel.pipeline());
            program.pipelines.len() - 1
        });
        program.commands.push(Command::Dispatch {
            pipeline,
            buffers: buffers.iter().map(|numbers| numbers.id).collect(),
            params,
            workgroups: workgroups.map(|n| n as u32),
        });
    }

    /// The steps in pieces for buffers of `width` numbers an item.
    ///
    /// # Errors
    /// [`Error::Shape`] if a step does not fit in a buffer.
    pub(crate) fn pieces(&self, steps: &Steps, width: usize) -> Result<Arc<[Piece]>, Error> {
        if let Some(last) = &locked(&self.recorded).pieces
            && (&last.steps, last.width) == (steps, width)
        {
            return Ok(Arc::clone(&last.pieces));
        }
        let most = usize::try_from(self.largest_buffer / 4).unwrap_or(usize::MAX);
        let pieces: Arc<[Piece]> = pieces::cut(steps, width, most, self.rules.most_rows())?
            .into_iter()
            .map(|range| {
                self.piece(&steps.slice(range.start, range.end), steps.at(range.start).0.start)
            })
            .collect();
        let cut = CutSteps { steps: steps.clone(), width, pieces: Arc::clone(&pieces) };
        locked(&self.recorded).pieces = Some(cut);
        Ok(pieces)
    }

    /// The piece that has these steps, and `first` items before it.
    fn piece(&self, steps: &Steps, first: usize) -> Piece {
        let mut table = vec![NONE; steps.time() * steps.batch()];
        steps.for_each(|item, t, b| table[t * steps.batch() + b] = item as u32);
        Piece { time: steps.time(), items: first..first + steps.items(), table: self.table(&table) }
    }

    /// Where in its place the row of each item begins.
    fn places(&self, place: Place, steps: &Steps) -> Numbers {
        let mut places = vec![0; steps.items()];
        steps.for_each(|item, t, b| places[item] = place.offset(item, t, b) as u32);
        self.table(&places)
    }

    /// Rows from one buffer to another, each with where the first begins and the distance from
    /// one to the next.
    pub(crate) fn copy_rows(
        &self,
        rows: usize,
        width: usize,
        from: (&Numbers, usize, usize),
        to: (&Numbers, usize, usize),
    ) {
        let (from, from_at, from_stride) = from;
        let (to, to_at, to_stride) = to;
        let params = row_kernels::CopyRows {
            rows: rows as u32,
            width: width as u32,
            from_at: from_at as u32,
            from_stride: from_stride as u32,
            to_at: to_at as u32,
            to_stride: to_stride as u32,
        };
        self.copy_by(from, from, to, params);
    }

    pub(crate) fn copy_by(
        &self,
        from: &Numbers,
        places: &Numbers,
        to: &Numbers,
        params: row_kernels::CopyRows,
    ) {
        let groups = by_column(params.rows as usize, params.width as usize);
        self.rows(RowKernel::CopyRows, &[from, places, to], params.words(), groups);
    }

    /// Rows one after the other.
    pub(crate) fn packed(&self, from: Rows<'_, Numbers>, steps: &Steps, width: usize) -> Numbers {
        let mut to = self.blank_buffer(steps.items() * width);
        self.pack_rows(from, steps, width, &mut to);
        to
    }

    /// From packed rows to their places.
    pub fn unpack_rows(
        &self,
        from: &Numbers,
        steps: &Steps,
        width: usize,
        to: &Numbers,
        place: Place,
    ) {
        let params = row_kernels::CopyRows {
            rows: steps.items() as u32,
            width: width as u32,
            from_at: 0,
            from_stride: width as u32,
            to_at: 0,
            to_stride: NONE,
        };
        let places = self.places(place, steps);
        self.copy_by(from, &places, to, params);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.released.abandon();
    }
}

impl Backend for Recorder {
    type Elem = f32;
    type Slice = Numbers;
    type Buffer = Box<Numbers>;
    type Scratch = Box<Numbers>;
    type Weights = Weights;
    type Record = Record;

    fn zeros(&self, len: usize) -> Result<Box<Numbers>, Error> {
        Ok(Box::new(self.buffer(len)))
    }

    fn blank(&self, len: usize) -> Result<Box<Numbers>, Error> {
        Ok(Box::new(self.blank_buffer(len)))
    }

    fn copy(&self, from: &Numbers) -> Result<Box<Numbers>, Error> {
        let to = self.blank(from.len())?;
        self.copy_rows(1, from.len(), (from, 0, 0), (&to, 0, 0));
        Ok(to)
    }

    fn pack_rows(&self, from: Rows<'_, Numbers>, steps: &Steps, width: usize, to: &mut Numbers) {
        let mut params = row_kernels::CopyRows {
            rows: steps.items() as u32,
            width: width as u32,
            to_stride: width as u32,
            ..Default::default()
        };
        match from.place {
            Place::Packed { start, stride } => {
                (params.from_at, params.from_stride) = (start as u32, stride as u32);
                self.copy_by(from.data, from.data, to, params);
            }
            Place::Padded { .. } => {
                params.from_stride = NONE;
                let places = self.places(from.place, steps);
                self.copy_by(from.data, &places, to, params);
            }
        }
    }

    fn times(&self, a: &Numbers, b: &Numbers) -> Result<Box<Numbers>, Error> {
        let product = self.blank(a.len())?;
        let params = row_kernels::Elements { len: a.len() as u32 };
        self.rows(RowKernel::Times, &[a, b, &product], params.words(), by_number(a.len()));
        Ok(product)
    }

    fn weights(&self, shape: &Shape, parameters: &Numbers) -> Result<Weights, Error> {
        debug_assert_eq!(shape.len(), parameters.len());
        Ok(Weights { numbers: Arc::from(self.copy(parameters)?), at: 0 })
    }

    fn record(&self, shape: &Shape, _: usize, batch: usize) -> Result<Record, Error> {
        Ok(Record {
            items: Vec::new(),
            mixed: Vec::new(),
            inputs: Vec::new(),
            last: self.blank_buffer(batch * shape.cell.states() * shape.hidden),
        })
    }

    fn forward(&self, run: Forward<'_, Self>) -> Result<(), Error> {
        forward::forward(self, run)
    }

    fn backward(&self, run: Backward<'_, Self>) -> Result<(), Error> {
        backward::backward(self, run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_take_turns_within_a_program() {
        let rec = Recorder::new();
        let ones = rec.numbers(&[1.0; 100]);
        let mut power = rec.times(&ones, &ones).unwrap();
        for _ in 0..10 {
            power = rec.times(&power, &ones).unwrap();
        }
        let program = rec.program();
        // What is written, and two that are read and written in turn.
        assert_eq!(program.buffers.len(), 3);
        assert_eq!(program.released.len(), 1);
        for command in &program.commands {
            if let Command::Dispatch { buffers, .. } = command {
                assert!(buffers[2] != buffers[0] && buffers[2] != buffers[1], "{buffers:?}");
            }
        }
        assert!(!program.released.contains(&power.id()));
    }

    #[test]
    fn only_what_may_hold_anything_takes_the_place_of_another() {
        let rec = Recorder::new();
        let made = || locked(&rec.recorded).program.buffers.len();
        // Zeros are made by the start of a program, and so is what is written.
        drop(rec.blank_of(100));
        let _kept = (rec.zeros_of(100), rec.numbers(&[1.0; 100]));
        assert_eq!(made(), 3);
        let first = rec.blank_of(100);
        assert_eq!(made(), 3);
        // What is written stays, for who runs the program again.
        drop(rec.numbers(&[1.0; 100]));
        drop(rec.blank_of(100));
        assert_eq!(made(), 5);
        // Neither much larger ones nor smaller ones.
        drop(first);
        drop((rec.blank_of(40), rec.blank_of(101)));
        assert_eq!(made(), 7);
        // Nor those of an earlier program, which may fail.
        rec.program();
        drop(rec.blank_of(100));
        assert_eq!(made(), 1);
    }
}
