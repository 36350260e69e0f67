// d_x = y (d_y - d_y . y), a workgroup for each row.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = number_of(group);
    if (row >= p.rows) {
        return;
    }
    let start = row * p.width;
    var along = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        along += d_y[start + j] * y[start + j];
    }
    along = sum_of_all(along, local.x);
    for (var j = local.x; j < p.width; j += THREADS) {
        d_x[start + j] = y[start + j] * (d_y[start + j] - along);
    }
}
