// The value of each loss and its derivative: seqrs/src/losses.rs.

fn sign_of(d: f32) -> f32 {
    return select(sign(d), d, d == 0.0);
}

fn binary_cross_entropy(x: f32, y: f32) -> vec2<f32> {
    return vec2<f32>(relu(x) - x * y + log_1p(exp(-abs(x))), sigmoid(x) - y);
}

fn squared(x: f32, y: f32) -> vec2<f32> {
    let d = x - y;
    return vec2<f32>(d * d, 2.0 * d);
}

fn absolute(x: f32, y: f32) -> vec2<f32> {
    let d = x - y;
    return vec2<f32>(abs(d), sign_of(d));
}

fn huber(x: f32, y: f32) -> vec2<f32> {
    let delta = bitcast<f32>(p.delta);
    let d = x - y;
    let far = vec2<f32>(delta * (abs(d) - 0.5 * delta), delta * sign_of(d));
    return select(far, vec2<f32>(0.5 * d * d, d), abs(d) <= delta);
}
