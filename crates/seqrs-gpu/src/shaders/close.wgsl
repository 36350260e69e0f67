// The second half of a step back of a cell with two products: the gradient of the operand of the
// second, and what it adds to the gradients of the first gates and of h.

fn finish_closing(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        return;
    }
    let saved = recorded(item, u);
    let s = recorded_state(item, u);
    let seen = through_mask(b, u, operand(saved, s));
    leave_closed(item, b, u, seen, close(saved, s, through_mask(b, u, sums[0])));
}
