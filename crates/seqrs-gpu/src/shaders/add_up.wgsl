// Sums and nothing else: of all gates of the units, row by row.

fn finish(b: u32, u: u32, sums_: array<f32, PRODUCTS>) {
    var sums = sums_;
    for (var gate = 0u; gate < PRODUCTS; gate++) {
        to[(b * PRODUCTS + gate) * p.units + u] = sums[gate];
    }
}
