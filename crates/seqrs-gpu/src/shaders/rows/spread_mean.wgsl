// The way back of a mean over live steps: each of them gets its share.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.width);
    let g = place.x;
    let j = place.y;
    if (g >= p.groups || j >= p.width) {
        return;
    }
    let first = groups[g];
    let end = groups[g + 1u];
    let share = from_[g * p.width + j] / f32(end - first);
    for (var k = first; k < end; k++) {
        to[members[k] * p.width + j] = share;
    }
}
