// to[j] += the sum of column j over all rows, ascending: the gradient of a bias.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let j = number_of(group) * THREADS + local.x;
    if (j >= p.columns) {
        return;
    }
    var sum = to[p.to_at + j];
    for (var i = 0u; i < p.rows; i++) {
        sum += from_[p.from_at + i * p.stride + j];
    }
    to[p.to_at + j] = sum;
}
