// One step of a cell for all rows: the recurrent product, and the cell on its sums. The twin of
// seqrs-cpu/src/step.rs.
//
// A row that is not live keeps its state. h and h_new are different buffers, since every unit
// reads all of h. In a cell with two products this is the second, and `opened` holds what the
// first left (open.wgsl).

fn operand_at(row: u32, k: u32) -> f32 {
    return OPERAND;
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + (gate * p.hidden + unit) * p.depth + k];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let s = state_before(b, u);
    let item = items[p.items_at + b];
    if (item == NONE) {
        h_new[b * p.units + u] = s.h;
        return;
    }
    let stepped = forward(gates_from_input(item, u), gates_from_state(sums), s, opened_at(b, u));
    keep(item, b, u, s, stepped.saved);
    state_after(item, b, u, stepped.s);
}
