// The projection after a step: h = m W_hr^T, where m is what the step gave as h.
//
// A row that is not live keeps its h.

fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    return m[row * p.depth + k];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        return;
    }
    h[b * 4u * p.h_row + u] = sums[0];
    y[p.y_at + item * p.y_stride + u] = sums[0];
}
