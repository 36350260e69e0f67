// What normalises the NAME of a row: NAME_at(b, 0) .. NAME_at(b, width - 1).
//
// The variance is that of the distances from the mean, as in rows/layer_norm.wgsl.

fn moments_of_NAME(b: u32, width: u32, thread: u32) -> Moments {
    let count = f32(width);
    var sum = 0.0;
    for (var j = thread; j < width; j += THREADS) {
        sum += NAME_at(b, j);
    }
    let mean = sum_of_all(sum, thread) / count;
    var squares = 0.0;
    for (var j = thread; j < width; j += THREADS) {
        let d = NAME_at(b, j) - mean;
        squares += d * d;
    }
    let variance = sum_of_all(squares, thread) / count;
    return Moments(mean, 1.0 / sqrt(variance + EPSILON));
}
