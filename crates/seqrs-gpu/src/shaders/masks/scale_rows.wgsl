// Each row times its mask.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.width);
    let u = place.y;
    if (place.x < p.rows && u < p.width) {
        rows[p.at + place.x * p.stride + u] *= mask[place.x * p.width + u];
    }
}
