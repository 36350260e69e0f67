// The first half of a step back around a projection: the gradient of what came out of it, for all
// rows. The second is step_back_projected.wgsl.
//
//     d_h = d_y + what did not go through a product + d_gates(after) W_hh

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
    if (u >= p.units || b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    var d = running[b * p.running + u] + sums[0];
    if (p.d_y_stride != NONE) {
        d += d_y[p.d_y_at + item * p.d_y_stride + u];
    }
    d_h[item * p.units + u] = d;
}
