// One step of a normalised cell back, a workgroup for each row, after the gradient of its h
// (project_back.wgsl, and add_up.wgsl where there is a projection). The way back of step.wgsl.
//
//     d_gates, d_s' = the cell's way back
//     d_sums = (g - mean(g) - hat mean(g hat)) / sqrt(variance + epsilon),  g = gamma d_gh
//
// `d` has what goes on to the step before: d_gh first, then d_sums in its place. A row that is not
// live leaves everything as it is. As in step.wgsl a unit is one thread's.

// Of g and of g hat.
struct Means { alone: f32, along: f32 }

fn means(sum: f32, dot: f32, width: u32, thread: u32) -> Means {
    let count = f32(width);
    return Means(sum_of_all(sum, thread) / count, sum_of_all(dot, thread) / count);
}

fn norm_back(g: f32, hat: f32, of_row: Means, inverse: f32) -> f32 {
    return (g - of_row.alone - hat * of_row.along) * inverse;
}

fn hat_at(item: u32, column: u32) -> f32 {
    return record[item * p.record + HATS * p.hidden + column];
}

fn inverse_at(item: u32, norm: u32) -> f32 {
    return record[item * p.record + INVERSES * p.hidden + norm];
}

// Of a gate of a unit: it is followed by a multiple of four numbers.
fn place_of(b: u32, gate: u32, u: u32) -> u32 {
    return b * 4u * p.columns + gate * padded(p.hidden) + u;
}

fn set_d(b: u32, gate: u32, u: u32, value: f32) {
    d[place_of(b, gate, u)] = value;
}

// The gradient of a normalised sum, times its gamma.
fn scaled_d(b: u32, gate: u32, u: u32) -> f32 {
    return parameters[p.gamma_hh_at + gate * p.hidden + u] * d[place_of(b, gate, u)];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let thread = local.x;
    let b = number_of(group);
    if (b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    let of_c = means_of_c(item, b, thread);
    for (var u = thread; u < p.hidden; u += THREADS) {
        let s = recorded_state(item, u);
        leave(item, b, u, cell_back(item, b, u, s, of_c), s);
    }
    var sum = 0.0;
    var dot = 0.0;
    for (var u = thread; u < p.hidden; u += THREADS) {
        for (var gate = 0u; gate < GATES; gate++) {
            let g = scaled_d(b, gate, u);
            sum += g;
            dot += g * hat_at(item, gate * p.hidden + u);
        }
    }
    let of_sums = means(sum, dot, GATES * p.hidden, thread);
    let inverse = inverse_at(item, 0u);
    for (var u = thread; u < p.hidden; u += THREADS) {
        for (var gate = 0u; gate < GATES; gate++) {
            let column = gate * p.hidden + u;
            let d_sum = norm_back(scaled_d(b, gate, u), hat_at(item, column), of_sums, inverse);
            set_d(b, gate, u, d_sum);
            d_gates[item * p.d_gates + D_SUMS * p.hidden + column] = d_sum;
        }
    }
}
