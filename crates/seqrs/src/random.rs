//! Everything random, from explicit seeds.
//!
//! A [`Stream`] is a counter-based generator (ChaCha with 8 rounds): its n-th word is a
//! function of the seed, the stream's number and n alone. So what is drawn depends neither
//! on threads nor on what else was drawn before.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seed made of another and an index, as different from its neighbours as from any other
/// (the output function of SplitMix64, Steele et al. 2014).
pub fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed ^ scramble(index.wrapping_add(0x9e37_79b9_7f4a_7c15));
    z = scramble(z.wrapping_add(0x9e37_79b9_7f4a_7c15));
    z
}

fn scramble(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An endless run of random words that can be entered anywhere.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream with this number among those of `seed`, from its beginning.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        Self(rng)
    }

    /// Goes to the word at `position`.
    pub fn seek(&mut self, position: u64) {
        self.0.set_word_pos(u128::from(position));
    }

    /// The next word.
    #[inline]
    pub fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in [0, 1), a multiple of 2^-53; takes two words.
    pub fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.0.next_u64() >> 11) as f64 * STEP
    }

    /// Uniform in 0..n, every value equally likely (Lemire 2019).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        // The products of the lowest 2^64 mod n fractions are the surplus that would make
        // some values likelier.
        let surplus = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= surplus {
                return (product >> 64) as u64;
            }
        }
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller 1958); takes four words.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_can_be_entered_anywhere() {
        let mut from_start = Stream::new(7, 3);
        let words: Vec<u32> = (0..100).map(|_| from_start.word()).collect();
        for position in [0, 1, 17, 63, 64, 99] {
            let mut stream = Stream::new(7, 3);
            stream.seek(position as u64);
            assert_eq!(stream.word(), words[position]);
        }
    }

    #[test]
    fn neighbours_have_nothing_in_common() {
        let first = |seed, number| Stream::new(seed, number).uniform();
        let mut draws: Vec<f64> =
            (0..50).flat_map(|s| (0..50).map(move |n| first(mix(s, n), 0))).collect();
        draws.extend((0..50).flat_map(|s| (1..50).map(move |n| first(s, n))));
        draws.sort_by(f64::total_cmp);
        assert!(draws.windows(2).all(|pair| pair[0] < pair[1]));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }

    #[test]
    fn draws_have_their_distributions() {
        let mut stream = Stream::new(1, 0);
        let n = 20_000;
        let normal: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let square = normal.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        let mut count = [0; 3];
        (0..n).for_each(|_| count[stream.below(3) as usize] += 1);
        assert!(count.iter().all(|&c| (f64::from(c) - f64::from(n) / 3.0).abs() < 300.0));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&stream.uniform())));
    }
}
