// The gradient of the initial h, when all steps are done: what the first live step of each row
// left, and the product of its gates' gradients.

fn operand_at(row: u32, k: u32) -> f32 {
    return d_after[row * p.columns + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + k * p.units + unit];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    d_h[p.h_at + b * p.units + u] = running[b * p.running + u] + sums[0];
}
