// Weights as sums.wgsl reads them: for each term the columns one after the other, and behind the
// last term their biases. A column is a vec4 of four neighbouring units, and the columns of
// the products of these four lie side by side:
//
//     to[term][unit / 4][product][unit % 4] = from[term, product, unit]
//
// Terms come in runs of `run` numbers, each padded with zeros to a multiple of four, as the units
// are.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let e = number_of(group) * THREADS + local.x;
    let width = padded(p.units) / 4u * p.products;
    let run = padded(p.run);
    let terms = p.runs * run;
    if (e >= 4u * width * (terms + 1u)) {
        return;
    }
    let unit = e / (4u * p.products) % (padded(p.units) / 4u) * 4u + e % 4u;
    let product = e / 4u % p.products;
    let term = e / (4u * width);
    var value = 0.0;
    if (unit < p.units && term == terms && p.bias_at != NONE) {
        value = parameters[p.bias_at + product * p.units + unit];
    }
    if (unit < p.units && term < terms && term % run < p.run) {
        value = parameters[p.from_at + term / run * p.from_run + term % run * p.from_term
            + product * p.from_product + unit * p.from_unit];
    }
    to[p.to_at + e] = value;
}
