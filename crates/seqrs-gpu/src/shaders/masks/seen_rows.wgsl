// What the recurrent products have read, for every item: h' times the mask of its row.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.width);
    let u = place.y;
    if (place.x >= p.places || u >= p.width) {
        return;
    }
    let item = items[place.x];
    if (item == NONE) {
        return;
    }
    let b = place.x % p.rows;
    seen[item * p.width + u] = mask[b * p.width + u] * h[p.from_at + item * p.from_stride + u];
}
