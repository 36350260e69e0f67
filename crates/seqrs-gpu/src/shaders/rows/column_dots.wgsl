// to[j] += the sum over all rows of a b in column j, ascending.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let j = number_of(group) * THREADS + local.x;
    if (j >= p.width) {
        return;
    }
    var sum = to[j];
    for (var row = 0u; row < p.rows; row++) {
        sum += a[row * p.width + j] * b[row * p.width + j];
    }
    to[j] = sum;
}
