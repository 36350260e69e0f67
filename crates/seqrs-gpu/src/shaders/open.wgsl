// The first half of a step of a cell with two products: from the first gates to the operand of the
// second.

fn operand_at(row: u32, k: u32) -> f32 {
    return h[row * p.depth + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + (gate * p.hidden + unit) * p.depth + k];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    let opening = open(gates_from_input(item, u), gates_from_state(sums), state_before(b, u));
    leave_open(b, u, opening);
}
