// The first half of a step back around a projection: the gradient of what came out of it, for all
// rows. The second is step_back_projected.wgsl.
//
//     d_h = d_y + what did not go through a product + d_gates(after) W_hh

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        return;
    }
    var d = running[b * p.running + u] + through_mask(b, u, sums[0]);
    if (p.d_y_stride != NONE) {
        d += d_y[p.d_y_at + item * p.d_y_stride + u];
    }
    d_h[item * padded(p.units) + u] = split(b, u, d);
}
