// The projection after a step: h = m W_hr^T, where m is what the step gave as h.
//
// A row that is not live keeps its h.

fn operand_at(row: u32, k: u32) -> f32 {
    return m[row * p.depth + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + unit * p.depth + k];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    h[b * p.units + u] = sums[0];
    y[p.y_at + item * p.y_stride + u] = sums[0];
}
