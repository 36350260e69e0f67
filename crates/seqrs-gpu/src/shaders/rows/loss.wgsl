// A loss of each number and its target, and the gradient. `term` stands in losses.wgsl.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let i = number_of(group) * THREADS + local.x;
    if (i < p.len) {
        let found = TERM(x[i], target_[i]);
        losses[i] = found.x;
        d_x[i] = found.y * bitcast<f32>(p.scale);
    }
}
