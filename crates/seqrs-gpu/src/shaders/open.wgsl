// The first half of a step of a cell with two products: from the first gates to the operand of the
// second.

fn finish_opening(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        return;
    }
    let opening = open(gates_from_input(item, u), gates_of_opening(sums), state_before(b, u));
    leave_open(b, u, opening);
}
