// What the sums of a step start from: the biases of its gates, if there are any.

fn start(u: u32) -> array<f32, PRODUCTS> {
    var biases = array<f32, PRODUCTS>();
    if (p.bias_at != NONE && u < p.units) {
        for (var q = 0u; q < PRODUCTS; q++) {
            biases[q] = parameters[p.bias_at + q * p.hidden + u];
        }
    }
    return biases;
}
