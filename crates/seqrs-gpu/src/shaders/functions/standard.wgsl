// Sigmoid, tanh and tanh: `Standard` of seqrs-core/src/cell/functions.rs, line for line.

fn gate(sum: f32) -> Kept {
    let value = sigmoid(sum);
    return Kept(value, value);
}

fn gate_again(value: f32) -> Sloped {
    return Sloped(value, value * (1.0 - value));
}

fn candidate(sum: f32) -> Kept {
    let value = hyperbolic_tangent(sum);
    return Kept(value, value);
}

fn candidate_again(value: f32) -> Sloped {
    return Sloped(value, 1.0 - value * value);
}

fn output(c: f32) -> f32 {
    return hyperbolic_tangent(c);
}

fn output_sloped(c: f32) -> Sloped {
    return candidate_again(hyperbolic_tangent(c));
}
