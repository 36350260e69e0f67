// Sums of some rows, in the order of a list: group g has the members starts[g] .. starts[g + 1].
// The gradient of an embedding (the members are the items of one id) and the mean over the live
// steps of a sequence.

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
    var sum = 0.0;
    for (var k = first; k < end; k++) {
        sum += from_[members[k] * p.width + j];
    }
    if (p.mean != 0u && end > first) {
        sum /= f32(end - first);
    }
    to[places[g] + j] += sum;
}
