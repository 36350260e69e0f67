// The second half of a step back of a cell with two products: the gradient of the operand of the
// second, and what it adds to the gradients of the first gates and of h.

fn operand_at(row: u32, k: u32) -> f32 {
    return d_late(row, k);
}

fn weight_at(gate: u32, unit: u32, k: u32) -> f32 {
    return parameters[p.weight_at + k * p.units + unit];
}

@compute @workgroup_size(UNITS, ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let u = group.x * UNITS + local.x;
    let b = group.y * ROWS + local.y;
    let sums = tile_sums(array<f32, 1>(0.0), group, local, p.depth);
    if (u >= p.units || b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    let saved = recorded(item, u);
    let s = recorded_state(item, u);
    leave_closed(item, b, u, operand(saved, s), close(saved, s, sums[0]));
}
