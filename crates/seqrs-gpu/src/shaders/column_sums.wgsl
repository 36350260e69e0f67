// to[j] += the sum of column j over all rows, ascending: the gradient of a bias.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= p.columns) {
        return;
    }
    var sum = to[p.to_at + id.x];
    for (var i = 0u; i < p.rows; i++) {
        sum += from_[p.from_at + i * p.stride + id.x];
    }
    to[p.to_at + id.x] = sum;
}
