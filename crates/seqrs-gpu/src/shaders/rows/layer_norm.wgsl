// Layer normalisation (Ba et al. 2016), a workgroup for each row:
//
//     x^ = (x - mean) / sqrt(variance + eps)        y = x^ weight + bias
//
// The variance is that of the distances from the mean: E x^2 - (E x)^2 loses its digits far from 0.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = number_of(group);
    if (row >= p.rows) {
        return;
    }
    let start = row * p.width;
    let count = f32(p.width);
    var sum = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        sum += x[start + j];
    }
    let mean = sum_of_all(sum, local.x) / count;
    var squares = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        let d = x[start + j] - mean;
        squares += d * d;
    }
    let variance = sum_of_all(squares, local.x) / count;
    let inverse = 1.0 / sqrt(variance + bitcast<f32>(p.eps));
    for (var j = local.x; j < p.width; j += THREADS) {
        let normal = (x[start + j] - mean) * inverse;
        normals[start + j] = normal;
        var scaled = normal * parameters[p.weight_at + j];
        if (p.bias_at != NONE) {
            scaled += parameters[p.bias_at + j];
        }
        y[start + j] = scaled;
    }
    if (local.x == 0u) {
        inverses[row] = inverse;
    }
}
