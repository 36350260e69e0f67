// One step back through time for all rows: the gradient of h from the gates of the step after, and
// the cell's way back. The twin of seqrs-cpu/src/step_back.rs.
//
//     d_h = d_y + what did not go through a product + d_gates(after) W_hh
//
// `running` has for each row what the step after left: d_h as far as it did not go through a
// product, d_c, and the states after this step. A row that is not live passes everything on.

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        pass_on(b, u);
        return;
    }
    var d_s = running_gradient(b, u);
    d_s.h += through_mask(b, u, sums[0]);
    if (p.d_y_stride != NONE) {
        d_s.h += d_y[p.d_y_at + item * p.d_y_stride + u];
    }
    let s = recorded_state(item, u);
    let in_step = into_step(b, u, d_s);
    var d = backward(recorded(item, u), s, running_state(b, u), per_unit(u), in_step);
    d.d_s = with_past(b, u, d.d_s, d_s);
    leave(item, b, u, d, s);
}
