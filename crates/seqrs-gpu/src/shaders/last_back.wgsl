// The gradient of the initial h, when all steps are done: what the first live step of each row
// left, and the product of its gates' gradients.

fn operand_at(row: u32, k: u32) -> f32 {
    return d_after[row * p.columns + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + k * p.units + unit];
}

@compute @workgroup_size(UNITS, ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let u = group.x * UNITS + local.x;
    let b = group.y * ROWS + local.y;
    let sums = tile_sums(array<f32, 1>(0.0), group, local, p.depth);
    if (u < p.units && b < p.rows) {
        d_h[p.h_at + b * p.units + u] = running[b * p.running + u] + sums[0];
    }
}
