// The largest value over the live steps of each sequence, and the item it is from: the first of
// equal ones, or the first NaN (by its bits: a compiler may take every number for finite).

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

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
    var largest = 0.0;
    var item = NONE;
    for (var k = first; k < end; k++) {
        let x = from_[members[k] * p.width + j];
        let larger = !is_nan(largest) && (is_nan(x) || x > largest);
        if (item == NONE || larger) {
            largest = x;
            item = members[k];
        }
    }
    to[g * p.width + j] = largest;
    sources[g * p.width + j] = item;
}
