// One step of a cell for all rows: the recurrent product, and the cell on its sums. The twin of
// seqrs-cpu/src/step.rs.
//
// A row that is not live keeps its state. In a cell with two products this is the second, and
// `opened` holds what the first left (open.wgsl).

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let s = state_before(b, u);
    let item = item_of(b);
    if (item == NONE) {
        set_h(b, u, s.h);
        return;
    }
    let gx = gates_from_input(item, u);
    let stepped = forward(gx, gates_from_state(sums), s, opened_at(b, u), per_unit(u));
    keep(item, b, u, s, stepped.saved);
    state_after(item, b, u, stepped.s);
}
