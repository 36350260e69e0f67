// One step of a normalised cell, a workgroup for each row, after the sums of its product with h
// (add_up.wgsl). The twin of seqrs-cpu/src/norms.rs.
//
//     gh = gamma hat(sums) + b_hh        s = cell(gx, gh)
//
// and, where there is a c, h of the normalised c (show.wgsl). A unit is one thread's from the first
// line to the last, so that what the thread writes of it it finds there again. A row that is not
// live keeps its state.

struct Moments { mean: f32, inverse: f32 }

fn sums_at(b: u32, column: u32) -> f32 {
    return sums[b * GATES * p.hidden + column];
}

fn gate_from_state(b: u32, column: u32, row: u32, of_sums: Moments) -> f32 {
    let hat = (sums_at(b, column) - of_sums.mean) * of_sums.inverse;
    record[row * p.record + HATS * p.hidden + column] = hat;
    var gate = parameters[p.gamma_hh_at + column] * hat;
    if (p.bias_hh_at != NONE) {
        gate += parameters[p.bias_hh_at + column];
    }
    return gate;
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
    let row = row_of_record(item, b);
    let of_sums = moments_of_sums(b, GATES * p.hidden, thread);
    for (var u = thread; u < p.hidden; u += THREADS) {
        let s = state_before(b, u);
        let gh = gates_from_state(b, u, row, of_sums);
        let stepped = forward(gates_from_input(item, u), gh, s, Opened(0.0), PerUnit(0.0));
        keep(row, b, u, s, stepped.saved);
        state_after(item, b, u, stepped.s);
    }
    if (thread == 0u) {
        record[row * p.record + INVERSES * p.hidden] = of_sums.inverse;
    }
    show(item, b, row, thread);
}
