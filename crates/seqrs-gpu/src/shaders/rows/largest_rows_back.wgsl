// The way back of largest_rows.wgsl: the gradient goes to where the value came from.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let i = number_of(group) * THREADS + local.x;
    if (i >= p.groups * p.width) {
        return;
    }
    let item = sources[i];
    if (item != NONE) {
        to[item * p.width + i % p.width] = from_[i];
    }
}
