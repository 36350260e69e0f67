// The gradients of the second product's gates, which the first half of the step back has left.

fn operand_at(product: u32, b: u32, k: u32) -> vec4<f32> {
    let at = b * 4u * p.columns + FIRST_GATES * padded(p.hidden) + 4u * k;
    return vec4<f32>(d_new[at], d_new[at + 1u], d_new[at + 2u], d_new[at + 3u]);
}

fn add_d(b: u32, gate: u32, u: u32, value: f32) {
    d_new[b * 4u * p.columns + gate * padded(p.hidden) + u] += value;
}
