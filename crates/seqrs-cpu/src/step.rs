//! One step of a cell for some rows: the recurrent product, and the cell on its sums.
//!
//! A panel of the recurrent weights holds, side by side, one register for each gate of the
//! same units. So when a tile's sums are done, gh of these units is in registers; gx is
//! added, the cell runs, and what leaves the registers is the new state. No gates are
//! written to memory and read back.
//!
//! ```text
//! for each panel (units u .. u + width):   for each tile of rows:
//!     gh[r][gate] = b_hh + h'[r] . W_hh[gate, u]       (micro-kernel)
//!     h[r][u], c[r][u] = cell(gx[r][gate, u], gh[r][gate], c'[r][u])
//! ```
//! h' and h must be different memory, since every panel reads all of h'. A cell with two
//! products runs as two such passes; the first leaves the operand of the second.
//!
//! The cell is compiled once for each size of a tile. One of many instructions
//! ([`Cell::FUSED`] is false) would make code of megabytes, so its sums are written to memory by a
//! plain product, and [`Pointwise`] runs it on them.
//!
//! # Departures
//! (measured on one core of an AMD EPYC with 1 MB of L2)
//!
//! 1. Steps walk the panels alternately up and down: the panels read last by one step are those
//!    read first by the next, and still in the cache when all of them do not fit. One row of 100
//!    steps, one thread: LSTM of 256 units, whose W_hh is as large as L2, 1.51 to 1.41 ms; with
//!    512 units (four times L2) and with two threads nothing, as L3 is hardly slower here.
//! 2. The sums of one row wait for their weights, so a slice of the next steps' product with the
//!    input goes on beside them (`product.rs`; `kernel.rs`, departure 3, has
//!    the cycles and `forward`, departure 3, the gain).
//! 3. A tile is as high as there are accumulators for; rows are cut into equal tiles (`kernel.rs`,
//!    departure 2).
//!
//! Tried and dropped: a single step that computes gx in the same pass, W_ih beside W_hh in the
//! order of the units, alternating from call to call: 24.2 to 23.4 us at 256 units, nothing below.

use std::ops::Range;
use std::ptr::{null, null_mut};

use seqrs_core::cell::{Bundle, Cell, MAX_BUNDLE};

use crate::kernel::{add_products, most_rows, tiles, with_rows};
use crate::kernels::Pass;
use crate::lanes::{Element, Simd};
use crate::level::{Kernel, Level};
use crate::pack::{PANEL, Panels};
use crate::product::Slice;

/// Where one row's values of one step lie. Gate values are `hidden` apart.
#[derive(Clone, Copy)]
pub(crate) struct Row<T> {
    /// Gates from the input: G runs of H.
    pub(crate) gx: *const T,
    /// Gates from the state, likewise, where the step is not fused; null where it is.
    pub(crate) gh: *mut T,
    /// What each unit has for itself: runs of H, the same for all rows.
    pub(crate) per_unit: *const T,
    /// Hidden state before the step.
    pub(crate) h: *const T,
    /// What the products see of it: itself, unless there is recurrent dropout.
    pub(crate) seen: *const T,
    /// Hidden state after it.
    pub(crate) h_new: *mut T,
    /// Cell state, before and then after; null for a cell without.
    pub(crate) c: *mut T,
    /// The operand of the second product and what goes with it, for a cell with two: H, and
    /// runs of H. Null for others.
    pub(crate) operand: *mut T,
    pub(crate) opened: *mut T,
    /// Output, a copy of h_new; null if it is written elsewhere.
    pub(crate) y: *mut T,
    /// Which (step, row) pair it is.
    pub(crate) item: usize,
    /// Where the tape keeps the cell's saved values and its new c; null at inference.
    pub(crate) saved: *mut T,
    pub(crate) cells: *mut T,
}

impl<T> Row<T> {
    /// A row of which nothing is known yet.
    pub(crate) const fn nowhere() -> Self {
        Self {
            gx: null(),
            gh: null_mut(),
            per_unit: null(),
            h: null(),
            seen: null(),
            h_new: null_mut(),
            c: null_mut(),
            operand: null_mut(),
            opened: null_mut(),
            y: null_mut(),
            item: 0,
            saved: null_mut(),
            cells: null_mut(),
        }
    }
}

/// The first pass of a cell with two products.
#[derive(Clone, Copy)]
pub(crate) struct Open<C>(pub(crate) C);
/// The pass that gives the new state.
#[derive(Clone, Copy)]
pub(crate) struct Finish<C>(pub(crate) C);

/// A pass over the panels.
pub(crate) trait Stage: Copy {
    /// Which it is.
    const PASS: Pass;
    /// Gates that it multiplies.
    const GATES: Range<usize>;
    /// What it multiplies them with.
    #[inline(always)]
    fn operand<T>(row: &Row<T>) -> *const T {
        Self::PASS.operand(row)
    }
    /// What it does with the sums of one register of units from `u` on, of which `n` exist.
    ///
    /// # Safety
    /// `row`'s memory as [`Step::run`] asks.
    unsafe fn apply<V: Simd>(self, gh: [V; MAX_BUNDLE], row: &Row<V::Elem>, hidden: usize, at: At);
}

/// A register of units: the first, and how many exist.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) u: usize,
    pub(crate) n: usize,
}

impl At {
    /// # Safety
    /// `from` is readable for the units from `u` on that exist.
    #[inline(always)]
    pub(crate) unsafe fn load<V: Simd>(self, from: *const V::Elem) -> V {
        // SAFETY: by the caller.
        unsafe {
            if self.n == V::WIDTH {
                V::load(from.add(self.u))
            } else {
                V::load_partial(from.add(self.u), self.n)
            }
        }
    }

    /// # Safety
    /// `to` is writable for the units from `u` on that exist.
    #[inline(always)]
    pub(crate) unsafe fn store<V: Simd>(self, value: V, to: *mut V::Elem) {
        // SAFETY: by the caller.
        unsafe {
            if self.n == V::WIDTH {
                value.store(to.add(self.u));
            } else {
                value.store_partial(to.add(self.u), self.n);
            }
        }
    }

    /// A bundle whose fields are runs of `hidden`.
    ///
    /// # Safety
    /// As [`At::load`] for each run.
    #[inline(always)]
    pub(crate) unsafe fn load_bundle<V: Simd, B: Bundle<V>>(
        self,
        from: *const V::Elem,
        hidden: usize,
    ) -> B {
        let mut values = [V::zero(); MAX_BUNDLE];
        for (field, value) in values.iter_mut().enumerate().take(B::NAMES.len()) {
            // SAFETY: by the caller.
            *value = unsafe { self.load(from.add(field * hidden)) };
        }
        B::from_array(values)
    }

    /// # Safety
    /// As [`At::store`] for each run.
    #[inline(always)]
    pub(crate) unsafe fn store_bundle<V: Simd, B: Bundle<V>>(
        self,
        bundle: B,
        to: *mut V::Elem,
        hidden: usize,
    ) {
        let values = bundle.to_array(V::zero());
        for (field, value) in values.into_iter().enumerate().take(B::NAMES.len()) {
            // SAFETY: by the caller.
            unsafe { self.store(value, to.add(field * hidden)) };
        }
    }
}

/// The state before the step. A projection makes h a vector of another size that no unit
/// sees, so h is read only where it has a value for each unit (`h` not null).
///
/// # Safety
/// `h` and `c` are null or readable for the units.
#[inline(always)]
pub(crate) unsafe fn load_state<V: Simd, C: Cell>(
    h: *const V::Elem,
    c: *const V::Elem,
    at: At,
) -> C::State<V> {
    let mut values = [V::zero(); MAX_BUNDLE];
    for (value, from) in values.iter_mut().zip([h, c]).take(C::STATES) {
        if !from.is_null() {
            // SAFETY: by the caller.
            *value = unsafe { at.load(from) };
        }
    }
    C::State::from_array(values)
}

impl<C: Cell> Stage for Open<C> {
    const PASS: Pass = Pass::Open;
    const GATES: Range<usize> = Pass::Open.gates(&C::COUNTS);

    #[inline(always)]
    unsafe fn apply<V: Simd>(self, gh: [V; MAX_BUNDLE], row: &Row<V::Elem>, hidden: usize, at: At) {
        // SAFETY: by the caller.
        unsafe {
            let gx = at.load_bundle(row.gx, hidden);
            let s = load_state::<V, C>(row.h, row.c, at);
            let (operand, opened) = self.0.open(gx, C::Gates::from_array(gh), s);
            at.store(operand, row.operand);
            at.store_bundle(opened, row.opened, hidden);
        }
    }
}

impl<C: Cell> Stage for Finish<C> {
    const PASS: Pass = Pass::Finish;
    const GATES: Range<usize> = Pass::Finish.gates(&C::COUNTS);

    #[inline(always)]
    unsafe fn apply<V: Simd>(self, gh: [V; MAX_BUNDLE], row: &Row<V::Elem>, hidden: usize, at: At) {
        // SAFETY: by the caller.
        unsafe {
            let gx = at.load_bundle(row.gx, hidden);
            let s =
                load_state::<V, C>(if C::STATES > 1 { std::ptr::null() } else { row.h }, row.c, at);
            let opened = match row.opened.is_null() {
                true => C::Opened::filled(V::zero()),
                false => at.load_bundle(row.opened, hidden),
            };
            let p = at.load_bundle(row.per_unit, hidden);
            let (s_new, saved) = self.0.forward(gx, C::Gates::from_array(gh), s, opened, p);
            let s_new = s_new.to_array(V::zero());
            at.store(s_new[0], row.h_new);
            if !row.y.is_null() {
                at.store(s_new[0], row.y);
            }
            if C::STATES > 1 {
                at.store(s_new[1], row.c);
            }
            if !row.saved.is_null() {
                at.store_bundle(saved, row.saved, hidden);
                if C::STATES > 1 {
                    at.store(s_new[1], row.cells);
                }
            }
        }
    }
}

/// A pass over sums that lie in memory.
pub(crate) struct Pointwise<'a, T> {
    pub(crate) rows: &'a [Row<T>],
    pub(crate) hidden: usize,
    /// The units that are computed.
    pub(crate) units: Range<usize>,
}

impl<T: Element> Pointwise<'_, T> {
    /// # Safety
    /// As [`Step::run`], and each row's gh holds the sums of the stage's gates.
    pub(crate) unsafe fn run<S: Stage>(self, stage: S, level: Level) {
        level.dispatch(Staged { pass: self, stage });
    }
}

/// A pass and what is done with its sums.
struct Staged<P, S> {
    pass: P,
    stage: S,
}

impl<T: Element, S: Stage> Kernel<T> for Staged<Pointwise<'_, T>, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Pointwise { rows, hidden, units } = self.pass;
        for row in rows {
            for u in units.clone().step_by(V::WIDTH) {
                let at = At { u, n: (units.end - u).min(V::WIDTH) };
                let mut gh = [V::zero(); MAX_BUNDLE];
                for gate in S::GATES {
                    // SAFETY: `Pointwise::run` passes on what its caller vouches for.
                    gh[gate] = unsafe { at.load(row.gh.add(gate * hidden)) };
                }
                // SAFETY: as above.
                unsafe { self.stage.apply(gh, row, hidden, at) };
            }
        }
    }
}

/// One pass of one step.
pub(crate) struct Step<'a, T> {
    pub(crate) rows: &'a [Row<T>],
    pub(crate) weights: &'a Panels<T>,
    /// The panels whose units are computed.
    pub(crate) panels: Range<usize>,
    pub(crate) hidden: usize,
    /// Whether to walk the panels from the last to the first.
    pub(crate) downwards: bool,
    /// What else is to be done on the way.
    pub(crate) ahead: Option<Slice<'a, T>>,
}

impl<T: Element> Step<'_, T> {
    /// # Safety
    /// Every row's memory is there for the cell's runs of `hidden` (the operand for the
    /// weights' depth), is used by nobody else, and what is written (h_new, c, operand,
    /// opened, y, saved, cells) overlaps nothing else.
    pub(crate) unsafe fn run<S: Stage>(self, stage: S, level: Level) {
        level.dispatch(Staged { pass: self, stage });
    }
}

impl<T: Element, S: Stage> Kernel<T> for Staged<Step<'_, T>, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let Self { pass: step, stage } = self;
        let Range { start, end } = step.panels;
        // A loop and no closure: a closure would be compiled without the instruction set.
        for k in start..end {
            let p = if step.downwards { start + end - 1 - k } else { k };
            let panel = step.weights.panel(p);
            let ahead = step.ahead.as_ref().map(|ahead| ahead.part(k - start, end - start));
            let (rows, hidden) = (step.rows, step.hidden);
            // SAFETY: `Step::run` passes on what its caller vouches for.
            unsafe {
                match S::GATES.len() {
                    3 => panel_step::<V, S, 3>(rows, panel, p, hidden, stage, ahead),
                    _ => panel_step::<V, S, PANEL>(rows, panel, p, hidden, stage, ahead),
                }
            }
        }
    }
}

/// # Safety
/// As [`Step::run`]; N is the number of registers in a row of the panel.
#[inline(always)]
unsafe fn panel_step<V: Simd, S: Stage, const N: usize>(
    rows: &[Row<V::Elem>],
    panel: &[V::Elem],
    p: usize,
    hidden: usize,
    stage: S,
    ahead: Option<Slice<'_, V::Elem>>,
) {
    if holds_tile_beside::<V>()
        && let Some(ahead) = ahead
    {
        // SAFETY: by the caller.
        unsafe { panel_step_beside::<V, S, N>(rows, panel, p, hidden, stage, &ahead) };
        return;
    }
    for tile in tiles(rows.len(), most_rows::<V>(N)) {
        let rows = &rows[tile];
        // SAFETY: by the caller.
        with_rows!(rows.len(), R => unsafe {
            step_tile::<V, S, R, N>(rows, panel, p, hidden, stage);
        });
    }
}

/// Rows of the tile that is computed beside a row: 20 accumulators and 4 weights, and 4
/// accumulators of the row.
pub(crate) const BESIDE: usize = 5;

/// Whether there are registers for both. Where there are 16, the tile would be so small that its
/// own weights are too many.
#[inline(always)]
fn holds_tile_beside<V: Simd>() -> bool {
    V::REGISTERS >= 32
}

/// As [`holds_tile_beside`].
pub(crate) fn has_registers_beside<T: Element>(level: Level) -> bool {
    struct Ask;
    impl<T: Element> Kernel<T> for Ask {
        type Output = bool;
        #[inline(always)]
        fn run<V: Simd<Elem = T>>(self) -> bool {
            holds_tile_beside::<V>()
        }
    }
    level.dispatch::<T, _>(Ask)
}

/// One row, and a part of the product of [`BESIDE`] others.
///
/// # Safety
/// As [`Step::run`]; N is the number of registers in a row of the panel.
#[inline(always)]
unsafe fn panel_step_beside<V: Simd, S: Stage, const N: usize>(
    rows: &[Row<V::Elem>],
    panel: &[V::Elem],
    p: usize,
    hidden: usize,
    stage: S,
    ahead: &Slice<'_, V::Elem>,
) {
    let row = N * V::WIDTH;
    let depth = panel.len() / row - 1;
    let operand = S::operand(&rows[0]);
    // SAFETY: by the caller.
    let mut acc = [unsafe { biases::<V, N>(panel) }];
    let count = ahead.panels.len();
    let mut done = 0;
    for (k, tile) in ahead.tiles::<V, BESIDE>().enumerate() {
        let end = depth * (k + 1) / count;
        // SAFETY: as above; a panel holds `depth` rows after its bias.
        unsafe {
            let weights = panel.as_ptr().add(row + done * row);
            tile.beside::<V, N, BESIDE>(operand.add(done), weights, end - done, &mut acc);
        }
        done = end;
    }
    // SAFETY: as above.
    unsafe {
        let weights = panel.as_ptr().add(row + done * row);
        add_products::<V, 1, N>([operand.add(done)], 1, weights, depth - done, &mut acc);
        apply_tile::<V, S, 1, N>(acc, rows, p, hidden, stage);
    }
}

/// # Safety
/// As [`Step::run`] for R rows; N is the number of registers in a row of the panel.
#[inline(always)]
unsafe fn step_tile<V: Simd, S: Stage, const R: usize, const N: usize>(
    rows: &[Row<V::Elem>],
    panel: &[V::Elem],
    p: usize,
    hidden: usize,
    stage: S,
) {
    let mut operands = [std::ptr::null(); R];
    for (operand, row) in operands.iter_mut().zip(rows) {
        *operand = S::operand(row);
    }
    let row = N * V::WIDTH;
    let depth = panel.len() / row - 1;
    // SAFETY: a panel holds `depth` rows after its bias; operands by the caller.
    unsafe {
        let mut acc = [biases::<V, N>(panel); R];
        add_products::<V, R, N>(operands, 1, panel.as_ptr().add(row), depth, &mut acc);
        apply_tile::<V, S, R, N>(acc, rows, p, hidden, stage);
    }
}

/// What the sums start from.
///
/// # Safety
/// N is the number of registers in a row of the panel.
#[inline(always)]
unsafe fn biases<V: Simd, const N: usize>(panel: &[V::Elem]) -> [V; N] {
    let mut bias = [V::zero(); N];
    for (v, bias) in bias.iter_mut().enumerate() {
        // SAFETY: a panel has a full row of biases.
        *bias = unsafe { V::load(panel.as_ptr().add(v * V::WIDTH)) };
    }
    bias
}

/// The cell on the sums of a tile.
///
/// # Safety
/// As [`Step::run`] for R rows; N is the number of registers in a row of the panel.
#[inline(always)]
unsafe fn apply_tile<V: Simd, S: Stage, const R: usize, const N: usize>(
    acc: [[V; N]; R],
    rows: &[Row<V::Elem>],
    p: usize,
    hidden: usize,
    stage: S,
) {
    let gates = S::GATES;
    let groups = N / gates.len();
    for r in 0..R {
        for q in 0..groups {
            let u = (p * groups + q) * V::WIDTH;
            if u >= hidden {
                break;
            }
            let mut gh = [V::zero(); MAX_BUNDLE];
            for gate in 0..gates.len() {
                gh[gates.start + gate] = acc[r][gate * groups + q];
            }
            let at = At { u, n: (hidden - u).min(V::WIDTH) };
            // SAFETY: by the caller.
            unsafe { stage.apply(gh, &rows[r], hidden, at) };
        }
    }
}
