// The gradient of the initial h, when all steps are done: what the first live step of each row
// left, and the product of its gates' gradients.

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    d_h[p.h_at + b * p.units + u] = running[b * p.running + u] + through_mask(b, u, sums[0]);
}
