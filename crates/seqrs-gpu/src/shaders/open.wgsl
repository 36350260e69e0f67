// The first half of a step of a cell with two products: from the first gates to the operand of the
// second.

fn operand_at(row: u32, k: u32) -> f32 {
    return h[row * p.depth + k];
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + (gate * p.hidden + unit) * p.depth + k];
}

@compute @workgroup_size(UNITS, ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let u = group.x * UNITS + local.x;
    let b = group.y * ROWS + local.y;
    let sums = tile_sums(biases(u), group, local, p.depth);
    if (u >= p.units || b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    let opening = open(gates_from_input(item, u), gates_from_state(sums), state_before(b, u));
    leave_open(b, u, opening);
}
