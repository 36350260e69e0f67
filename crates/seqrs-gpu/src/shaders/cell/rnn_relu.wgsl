// g = max(x, 0), and its derivative in terms of its value.

fn value(a: f32) -> f32 {
    return relu(a);
}

fn slope(h: f32) -> f32 {
    return heaviside(h);
}
