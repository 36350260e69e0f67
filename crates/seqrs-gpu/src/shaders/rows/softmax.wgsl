// softmax over each row, a workgroup each. What is largest becomes e^0, so nothing overflows.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = number_of(group);
    if (row >= p.rows) {
        return;
    }
    let start = row * p.width;
    var most = LEAST;
    for (var j = local.x; j < p.width; j += THREADS) {
        most = max(most, x[start + j]);
    }
    most = largest_of_all(most, local.x);
    var sum = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        sum += exp(x[start + j] - most);
    }
    sum = sum_of_all(sum, local.x);
    for (var j = local.x; j < p.width; j += THREADS) {
        y[start + j] = exp(x[start + j] - most) / sum;
    }
}
