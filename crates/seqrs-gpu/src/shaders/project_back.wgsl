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

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
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
