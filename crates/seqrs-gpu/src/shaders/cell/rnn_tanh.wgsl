// g = tanh, and its derivative in terms of its value.

fn value(a: f32) -> f32 {
    return hyperbolic_tangent(a);
}

fn slope(h: f32) -> f32 {
    return 1.0 - h * h;
}
