//! XXH64 (Collet, "xxHash fast digest algorithm", format 0.1.1): a fast checksum.
//!
//! It finds damage, not forgery. The bytes may come in any pieces.

const PRIME: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// Bytes of a stripe: one word for each of four lanes.
const STRIPE: usize = 32;

/// The checksum of bytes that come piece by piece.
#[derive(Clone, Debug)]
pub struct Xxh64 {
    seed: u64,
    lanes: [u64; 4],
    /// The beginning of a stripe that is not complete.
    rest: [u8; STRIPE],
    /// Bytes so far.
    len: u64,
}

impl Xxh64 {
    /// Of no bytes yet.
    pub fn new(seed: u64) -> Self {
        let lanes = [
            seed.wrapping_add(PRIME[0]).wrapping_add(PRIME[1]),
            seed.wrapping_add(PRIME[1]),
            seed,
            seed.wrapping_sub(PRIME[0]),
        ];
        Self { seed, lanes, rest: [0; STRIPE], len: 0 }
    }

    /// Goes on with these bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let held = self.held();
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if held > 0 {
            let (more, after) = bytes.split_at(bytes.len().min(STRIPE - held));
            self.rest[held..held + more.len()].copy_from_slice(more);
            if held + more.len() < STRIPE {
                return;
            }
            absorb(&mut self.lanes, &self.rest);
            bytes = after;
        }
        let mut stripes = bytes.chunks_exact(STRIPE);
        for stripe in &mut stripes {
            absorb(&mut self.lanes, stripe);
        }
        let rest = stripes.remainder();
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The checksum of the bytes so far.
    pub fn digest(&self) -> u64 {
        let mut hash = if self.len < STRIPE as u64 {
            self.seed.wrapping_add(PRIME[4])
        } else {
            let [a, b, c, d] = self.lanes;
            let sum = a.rotate_left(1).wrapping_add(b.rotate_left(7));
            let sum = sum.wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18));
            self.lanes.iter().fold(sum, |hash, &lane| {
                (hash ^ round(0, lane)).wrapping_mul(PRIME[0]).wrapping_add(PRIME[3])
            })
        };
        hash = hash.wrapping_add(self.len);
        let mut words = self.rest[..self.held()].chunks_exact(8);
        for word in &mut words {
            hash ^= round(0, word_of(word));
            hash = hash.rotate_left(27).wrapping_mul(PRIME[0]).wrapping_add(PRIME[3]);
        }
        let mut bytes = words.remainder();
        if let Some((half, after)) = bytes.split_first_chunk::<4>() {
            hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME[0]);
            hash = hash.rotate_left(23).wrapping_mul(PRIME[1]).wrapping_add(PRIME[2]);
            bytes = after;
        }
        for &byte in bytes {
            hash ^= u64::from(byte).wrapping_mul(PRIME[4]);
            hash = hash.rotate_left(11).wrapping_mul(PRIME[0]);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME[1]);
        hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME[2]);
        hash ^ (hash >> 32)
    }

    fn held(&self) -> usize {
        (self.len % STRIPE as u64) as usize
    }
}

/// The checksum of these bytes, seed 0.
pub fn xxh64(bytes: &[u8]) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(bytes);
    hash.digest()
}

fn absorb(lanes: &mut [u64; 4], stripe: &[u8]) {
    for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
        *lane = round(*lane, word_of(word));
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME[1])).rotate_left(31).wrapping_mul(PRIME[0])
}

fn word_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation.
    #[test]
    fn checksums_are_those_of_the_reference() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(xxh64(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..200_u32).map(|k| (k * 37 % 251) as u8).collect();
        for len in 0..bytes.len() {
            for piece in [1, 3, 31, 32, 33, 64] {
                let mut hash = Xxh64::new(0);
                bytes[..len].chunks(piece).for_each(|piece| hash.update(piece));
                assert_eq!(hash.digest(), xxh64(&bytes[..len]), "{len} bytes in {piece}s");
            }
        }
    }
}
