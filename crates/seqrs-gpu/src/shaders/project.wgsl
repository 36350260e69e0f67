// The projection after a step: h = m W_hr^T, where m is what the step gave as h.
//
// A row that is not live keeps its h.

fn operand_at(row: u32, k: u32) -> f32 {
    return m[row * p.depth + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + unit * p.depth + k];
}

@compute @workgroup_size(UNITS, ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let u = group.x * UNITS + local.x;
    let b = group.y * ROWS + local.y;
    let sums = tile_sums(array<f32, 1>(0.0), group, local, p.depth);
    if (u >= p.units || b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    h[b * p.units + u] = sums[0];
    y[p.y_at + item * p.y_stride + u] = sums[0];
}
