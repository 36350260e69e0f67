//! What the benches share. They are in `benches/`: `kernel` is one product, `layer` one
//! recurrent layer over a batch, `training` a whole step of a character model.

/// Numbers in [-1, 1) that depend on their count alone.
pub fn numbers(count: usize) -> Vec<f32> {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count)
        .map(|_| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            (bits >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
