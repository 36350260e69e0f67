// d_x = (d - mean(d) - x^ mean(d x^)) / sqrt(variance + eps) with d = d_y weight, a workgroup for
// each row.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = number_of(group);
    if (row >= p.rows) {
        return;
    }
    let start = row * p.width;
    let d_start = p.d_y_at + row * p.d_y_stride;
    let count = f32(p.width);
    var sum = 0.0;
    var dot = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        let d = d_y[d_start + j] * parameters[p.weight_at + j];
        sum += d;
        dot += d * normals[start + j];
    }
    let mean = sum_of_all(sum, local.x) / count;
    let along = sum_of_all(dot, local.x) / count;
    for (var j = local.x; j < p.width; j += THREADS) {
        let d = d_y[d_start + j] * parameters[p.weight_at + j];
        d_x[start + j] = inverses[row] * (d - mean - normals[start + j] * along);
    }
}
