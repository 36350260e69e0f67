//! Every register against [`Single`], bit for bit, and all of them against the exact
//! functions, in ULP.

use super::math::{EXP_MINUS_1_ULP, EXP_ULP, SIGMOID_ULP, SOFTPLUS_ULP, SOFTSIGN_ULP, TANH_ULP};
use super::single::Single;
use super::{Element, Simd, math};
use crate::level::{Kernel, Level};
use seqrs_core::lanes::Lanes;

mod oracle;

/// The name of a function of one number.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Sigmoid,
    Tanh,
    Relu,
    Heaviside,
    ExpMinus1,
    Softsign,
    Softplus,
}
use Function::*;

/// y = function(x), the last numbers by partial loads and stores.
struct Apply<'a, T> {
    function: Function,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Element> Kernel<T> for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        assert_eq!(self.x.len(), self.y.len());
        for (x, y) in self.x.chunks(V::WIDTH).zip(self.y.chunks_mut(V::WIDTH)) {
            // SAFETY: a chunk has its own length of numbers, at most `WIDTH`.
            let value = unsafe { V::load_partial(x.as_ptr(), x.len()) };
            let value = match self.function {
                Exp => math::exp(value),
                Sigmoid => Lanes::sigmoid(value),
                Tanh => Lanes::tanh(value),
                Relu => value.relu(),
                Heaviside => value.heaviside(),
                ExpMinus1 => value.exp_minus_1(),
                Softsign => value.softsign(),
                Softplus => value.softplus(),
            };
            // SAFETY: as above.
            unsafe { value.store_partial(y.as_mut_ptr(), y.len()) }
        }
    }
}

fn at_level<T: Element>(level: Level, function: Function, x: &[T]) -> Vec<T> {
    let mut y = vec![T::default(); x.len()];
    level.dispatch(Apply { function, x, y: &mut y });
    y
}

fn one_by_one<T: Element>(function: Function, x: &[T]) -> Vec<T> {
    let mut y = vec![T::default(); x.len()];
    Apply { function, x, y: &mut y }.run::<Single<T>>();
    y
}

/// Every operation of a register, one result after another.
struct Operations<'a, T> {
    a: &'a [T],
    b: &'a [T],
    c: &'a [T],
    /// Without `mul_add`, which the scalar level rounds twice.
    but_mul_add: bool,
}

impl<T: Element> Kernel<T> for Operations<'_, T> {
    type Output = Vec<Vec<T>>;

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) -> Vec<Vec<T>> {
        let mut results = Vec::new();
        let n = self.a.len();
        for from in (0..n).step_by(V::WIDTH) {
            let lanes = V::WIDTH.min(n - from);
            let load = |all: &[T]| {
                let chunk = &all[from..from + lanes];
                // SAFETY: `chunk` has `lanes` numbers.
                unsafe { V::load_partial(chunk.as_ptr(), lanes) }
            };
            let (a, b, c) = (load(self.a), load(self.b), load(self.c));
            let fused = if self.but_mul_add { a } else { a.mul_add(b, c) };
            let all = [
                a + b,
                a - b,
                a * b,
                -a,
                a.div(b),
                fused,
                a.sqrt(),
                a.abs(),
                a.negative_abs(),
                a.with_sign_of(b),
                a.at_least(b),
                a.at_most(b),
                a.if_positive(b, c),
                a.if_sign(b, c),
                a.low_bits_to_exponent(),
                a.relu(),
                a.heaviside(),
                a.magnitude(),
                a.choose(b, c),
                a.between(b, c),
            ];
            results.resize(all.len(), vec![T::default(); n]);
            for (value, result) in all.into_iter().zip(&mut results) {
                let chunk = &mut result[from..from + lanes];
                // SAFETY: `chunk` has `lanes` numbers.
                unsafe { value.store_partial(chunk.as_mut_ptr(), lanes) }
            }
        }
        results
    }
}

/// Stores, all and partial, into memory with a mark beyond them.
struct Partial<T>(std::marker::PhantomData<T>);

impl<T: Element> Kernel<T> for Partial<T> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd<Elem = T>>(self) {
        let number = |k: usize| T::from(k + 1).unwrap();
        let mark = T::from(-7).unwrap();
        for n in 0..=V::WIDTH {
            // Nothing of the allocation is beyond the n numbers.
            let from: Box<[T]> = (0..n).map(number).collect();
            let mut all = vec![mark; V::WIDTH + 1];
            // SAFETY: `from` has `n` numbers, `all` has `WIDTH` and one more.
            unsafe { V::load_partial(from.as_ptr(), n).store(all.as_mut_ptr()) };
            for (k, &got) in all.iter().enumerate() {
                let want = if k < n {
                    number(k)
                } else if k < V::WIDTH {
                    num_traits::zero()
                } else {
                    mark
                };
                assert_eq!(got, want, "load of {n} of {}, lane {k}", V::WIDTH);
            }

            let from: Vec<T> = (0..V::WIDTH).map(number).collect();
            // One number in, so that the address is not aligned.
            let mut to = vec![mark; V::WIDTH + 2];
            // SAFETY: `from` has `WIDTH` numbers and `to` has `n` of them after the first.
            unsafe { V::load(from.as_ptr()).store_partial(to.as_mut_ptr().add(1), n) };
            for (k, &got) in to.iter().enumerate() {
                let inside = (1..=n).contains(&k);
                let want = if inside { number(k - 1) } else { mark };
                assert_eq!(got, want, "store of {n} of {}, place {k}", V::WIDTH);
            }
        }
    }
}

/// What the tests need to know of a type.
trait Tested: Element {
    /// NaNs, zeros, infinities, subnormals, where the functions change their form, and
    /// a sample of everything else.
    fn sample() -> Vec<Self>;
    /// The bits; all NaNs have the same.
    fn key(self) -> u64;
    /// How far `got` is from the exact value, in ULP.
    fn error(function: Function, x: Self, got: Self) -> f64;
}

/// The sequence of pseudo-random numbers "splitmix64".
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In -1..1.
    fn unit(&mut self) -> f64 {
        (self.bits() as i64) as f64 / 2_f64.powi(63)
    }
}

const SPECIAL: [f64; 30] = [
    0.0,
    1.0,
    0.5,
    2.0,
    0.625,
    1e-3,
    1e-8,
    1e-17,
    1e-30,
    1e-40,
    1e-45,
    1e-310,
    5e-324,
    9.0,
    9.010_913,
    10.0,
    19.0,
    19.061_547,
    20.0,
    36.8,
    87.336_55,
    88.722_84,
    103.972_08,
    104.0,
    708.396_418_5,
    709.782_712_9,
    745.133_219_2,
    746.0,
    1e30,
    1e300,
];

impl Tested for f32 {
    fn sample() -> Vec<f32> {
        let special = SPECIAL.iter().flat_map(|&x| [x as f32, -x as f32]);
        let more = [f32::INFINITY, -f32::INFINITY, f32::NAN, -f32::NAN];
        let strided = (0..=u32::MAX).step_by(1009).map(f32::from_bits);
        special.chain(more).chain(near_changes().map(|x| x as f32)).chain(strided).collect()
    }

    fn key(self) -> u64 {
        if self.is_nan() { u64::MAX } else { self.to_bits().into() }
    }

    fn error(function: Function, x: f32, got: f32) -> f64 {
        let x = f64::from(x);
        let want = match function {
            Exp => x.exp(),
            Sigmoid => Lanes::sigmoid(x),
            Tanh => x.tanh(),
            Relu => x.relu(),
            Heaviside => x.heaviside(),
            ExpMinus1 => x.exp_minus_1(),
            Softsign => x.softsign(),
            Softplus => x.softplus(),
        };
        if want.is_nan() || got.is_nan() {
            return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
        }
        // Infinity counts as the number after the largest.
        let limit = 2_f64.powi(128);
        let got = f64::from(got).clamp(-limit, limit);
        let exponent = (want.abs().to_bits() >> 52) as i32 - 1023;
        let ulp = 2_f64.powi(exponent.clamp(-126, 127) - 23);
        (got - want.clamp(-limit, limit)).abs() / ulp
    }
}

impl Tested for f64 {
    fn sample() -> Vec<f64> {
        let special = SPECIAL.iter().flat_map(|&x| [x, -x]);
        let more = [f64::INFINITY, -f64::INFINITY, f64::NAN, -f64::NAN];
        let mut random = Random(1);
        let spread = (0..400_000).map(move |k| {
            let unit = random.unit();
            match k % 8 {
                0 => f64::from_bits(random.bits()),
                1 => unit * 760.0,
                2 => unit * 40.0,
                3 | 4 => unit * 4.0,
                5 | 6 => unit,
                _ => unit * 2_f64.powi((random.bits() % 1074) as i32).recip(),
            }
        });
        special.chain(more).chain(near_changes()).chain(spread).collect()
    }

    fn key(self) -> u64 {
        if self.is_nan() { u64::MAX } else { self.to_bits() }
    }

    fn error(function: Function, x: f64, got: f64) -> f64 {
        if x.is_nan() || got.is_nan() {
            return if x.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
        }
        match function {
            Exp => oracle::exp(x).error(got),
            Sigmoid => oracle::sigmoid(x).error(got),
            Tanh => oracle::tanh(x).error(got),
            Relu => (x.relu() - got).abs(),
            Heaviside => (x.heaviside() - got).abs(),
            // The standard library's are within an ULP.
            ExpMinus1 => in_ulp(Lanes::exp_minus_1(x), got),
            Softsign => in_ulp(Lanes::softsign(x), got),
            Softplus => in_ulp(Lanes::softplus(x), got),
        }
    }
}

fn in_ulp(want: f64, got: f64) -> f64 {
    if want == got {
        return 0.0;
    }
    // The distance to the number after it, as for a subnormal.
    let ulp = f64::from_bits(want.abs().to_bits() + 1) - want.abs();
    (got - want).abs() / ulp
}

/// Around the arguments where n, the nearest whole number of ln 2 (or of half of it),
/// changes: where |r| is largest.
fn near_changes() -> impl Iterator<Item = f64> {
    (-2200..2200).flat_map(|k: i32| {
        let x = f64::from(k) * (std::f64::consts::LN_2 / 4.0);
        (-3..=3).map(move |d| x * (1.0 + f64::from(d) * 2_f64.powi(-52)))
    })
}

fn assert_same_bits<T: Tested>(what: &dyn std::fmt::Debug, x: &[T], got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len());
    for ((x, got), want) in x.iter().zip(got).zip(want) {
        assert_eq!(got.key(), want.key(), "{what:?} of {x:?}: {got:?}, one by one {want:?}");
    }
}

fn functions_have_the_bits_of_single<T: Tested>(level: Level) {
    let x = T::sample();
    for function in [Exp, Sigmoid, Tanh, Relu, Heaviside, ExpMinus1, Softsign, Softplus] {
        let got = at_level(level, function, &x);
        let want = one_by_one(function, &x);
        assert_same_bits(&(level, function), &x, &got, &want);
    }
}

fn operations_have_the_bits_of_single<T: Tested>(level: Level) {
    let all = T::sample();
    let few: Vec<T> = all[..64].iter().chain(all.iter().step_by(all.len() / 60)).copied().collect();
    let (mut a, mut b, mut c) = (vec![], vec![], vec![]);
    for (i, &x) in few.iter().enumerate() {
        for (j, &y) in few.iter().enumerate() {
            a.push(x);
            b.push(y);
            c.push(few[(i * 7 + j * 3) % few.len()]);
        }
    }
    let operations = || Operations { a: &a, b: &b, c: &c, but_mul_add: level.is_scalar() };
    let got = level.dispatch(operations());
    let want = operations().run::<Single<T>>();
    for (k, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_same_bits(&(level, "operation", k), &a, got, want);
    }
}

fn functions_are_within_their_bounds<T: Tested>(level: Level) {
    let x = T::sample();
    let functions = [
        (Exp, EXP_ULP),
        (Sigmoid, SIGMOID_ULP),
        (Tanh, TANH_ULP),
        (ExpMinus1, EXP_MINUS_1_ULP),
        (Softsign, SOFTSIGN_ULP),
        (Softplus, SOFTPLUS_ULP),
    ];
    for (function, bound) in functions {
        let defined = |x: &T| !matches!(function, ExpMinus1) || *x <= num_traits::zero();
        let x: Vec<T> = x.iter().copied().filter(defined).collect();
        let worst = worst(function, &x, &at_level(level, function, &x));
        println!("{} {level} {function:?}: {:.3} ULP at {:?}", T::NAME, worst.0, worst.1);
        assert!(worst.0 <= bound, "{level} {function:?}: {worst:?}, at most {bound} ULP");
    }
}

/// The largest error, and where.
fn worst<T: Tested>(function: Function, x: &[T], y: &[T]) -> (f64, T) {
    x.iter().zip(y).fold((0.0, T::default()), |worst, (&x, &y)| {
        let error = T::error(function, x, y);
        if error > worst.0 { (error, x) } else { worst }
    })
}

fn limits_and_special_values<T: Tested>(level: Level) {
    let number = |x: f64| T::from(x).unwrap();
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let tiny = T::min_positive_value().to_f64().unwrap() / 8.0;
    for (function, x, want) in [
        (Exp, inf, inf),
        (Exp, -inf, 0.0),
        (Exp, 0.0, 1.0),
        (Exp, -0.0, 1.0),
        (Exp, nan, nan),
        (Sigmoid, inf, 1.0),
        (Sigmoid, -inf, 0.0),
        (Sigmoid, 1e9, 1.0),
        (Sigmoid, -1e9, 0.0),
        (Sigmoid, 0.0, 0.5),
        (Sigmoid, -0.0, 0.5),
        (Sigmoid, nan, nan),
        (Tanh, inf, 1.0),
        (Tanh, -inf, -1.0),
        (Tanh, 1e9, 1.0),
        (Tanh, -1e9, -1.0),
        (Tanh, 0.0, 0.0),
        (Tanh, -0.0, -0.0),
        (Tanh, tiny, tiny),
        (Tanh, -tiny, -tiny),
        (Tanh, nan, nan),
        (Relu, 3.0, 3.0),
        (Relu, -3.0, 0.0),
        (Relu, inf, inf),
        (Relu, -inf, 0.0),
        (Relu, -0.0, -0.0),
        (Relu, nan, nan),
        (Heaviside, tiny, 1.0),
        (Heaviside, -tiny, 0.0),
        (Heaviside, inf, 1.0),
        (Heaviside, -inf, 0.0),
        (Heaviside, 0.0, 0.0),
        (Heaviside, -0.0, 0.0),
        (Heaviside, nan, nan),
        (ExpMinus1, -inf, -1.0),
        (ExpMinus1, 0.0, 0.0),
        (ExpMinus1, -tiny, -tiny),
        (ExpMinus1, nan, nan),
        (Softsign, inf, 1.0),
        (Softsign, -inf, -1.0),
        (Softsign, -3.0, -0.75),
        (Softsign, nan, nan),
        (Softplus, inf, inf),
        (Softplus, -inf, 0.0),
        (Softplus, 1e9, 1e9),
        (Softplus, -1e9, 0.0),
        (Softplus, nan, nan),
    ] {
        let got = at_level(level, function, &[number(x)])[0];
        let want = number(want);
        assert_eq!(got.key(), want.key(), "{level} {function:?} of {x}: {got:?}, not {want:?}");
    }
}

fn partial_loads_and_stores_stay_inside<T: Tested>(level: Level) {
    level.dispatch(Partial::<T>(std::marker::PhantomData));
}

/// Each body at each level and type, as a test with its own name.
macro_rules! at_each_level {
    ($($level:ident: $($body:ident)*;)*) => {$(
        mod $level {
            $(mod $body {
                #[test]
                fn float32() {
                    super::super::with_level(stringify!($level), super::super::$body::<f32>);
                }
                #[test]
                fn float64() {
                    super::super::with_level(stringify!($level), super::super::$body::<f64>);
                }
            })*
        }
    )*};
}

fn with_level(name: &str, body: fn(Level)) {
    match Level::available().into_iter().find(|level| level.name() == name) {
        Some(level) => body(level),
        None => eprintln!("not run: this processor lacks {name}"),
    }
}

at_each_level! {
    scalar: operations_have_the_bits_of_single functions_are_within_their_bounds
        limits_and_special_values partial_loads_and_stores_stay_inside;
    avx2: operations_have_the_bits_of_single functions_have_the_bits_of_single
        functions_are_within_their_bounds limits_and_special_values
        partial_loads_and_stores_stay_inside;
    avx512: operations_have_the_bits_of_single functions_have_the_bits_of_single
        functions_are_within_their_bounds limits_and_special_values
        partial_loads_and_stores_stay_inside;
    neon: operations_have_the_bits_of_single functions_have_the_bits_of_single
        functions_are_within_their_bounds limits_and_special_values
        partial_loads_and_stores_stay_inside;
}

/// Every `f32` there is, at the fastest level (whose bits are those of all with a
/// fused multiply-add) and at the scalar one. About four minutes on two cores.
#[test]
#[ignore = "exhaustive: run with --ignored"]
fn all_f32_are_within_their_bounds() {
    const CHUNK: u64 = 1 << 14;
    let levels = [Level::detect(), Level::available()[0]];
    let functions = [(Exp, EXP_ULP), (Sigmoid, SIGMOID_ULP), (Tanh, TANH_ULP)];
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let part = |worker: u64| {
        let mut worsts = [[(0.0, 0.0_f32); 2]; 3];
        for chunk in (worker..(1 << 32) / CHUNK).step_by(workers as usize) {
            let x: Vec<f32> = (chunk * CHUNK..(chunk + 1) * CHUNK)
                .map(|bits| f32::from_bits(bits as u32))
                .collect();
            for ((function, _), worsts) in functions.iter().zip(&mut worsts) {
                for (&level, so_far) in levels.iter().zip(worsts) {
                    let here = worst(*function, &x, &at_level(level, *function, &x));
                    if here.0 > so_far.0 {
                        *so_far = here;
                    }
                }
            }
        }
        worsts
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || part(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (k, (function, bound)) in functions.into_iter().enumerate() {
        for (j, level) in levels.into_iter().enumerate() {
            let worst =
                parts.iter().map(|part| part[k][j]).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!("{level} {function:?}: {:.4} ULP at {:?}", worst.0, worst.1);
            assert!(worst.0 <= bound, "{level} {function:?}: {worst:?}, at most {bound} ULP");
        }
    }
}
