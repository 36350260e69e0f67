fn sigmoid_slope(y: f32) -> f32 {
    return y * (1.0 - y);
}

fn tanh_slope(y: f32) -> f32 {
    return 1.0 - y * y;
}
