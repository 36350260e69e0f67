// The second half of a step back around a projection: the gradient of m, which went into it, the
// cell's way back, and m again for the gradient of W_hr. The first half is project_back.wgsl.
//
//     d_m = d_h W_hr
//
// All of d_h' goes through a product, so `running` keeps none of it but what zoneout has let past
// the step, which the first half leaves there. The first half is done with d_after, so d_new may be
// the same buffer: a row that is not live leaves it as it is.

fn operand_at(product: u32, row: u32, k: u32) -> vec4<f32> {
    let item = item_of(row);
    if (item == NONE) {
        return vec4<f32>();
    }
    return d_h[item * p.depth + k];
}

fn finish(b: u32, u: u32, sums: array<f32, PRODUCTS>) {
    let item = item_of(b);
    if (item == NONE) {
        return;
    }
    var d_s = running_gradient(b, u);
    d_s.h = sums[0];
    let saved = recorded(item, u);
    let s = recorded_state(item, u);
    let s_new = running_state(b, u);
    m[item * p.units + u] = unprojected(saved, s_new);
    var d = backward(saved, s, s_new, per_unit(u), into_step(b, u, d_s));
    d.d_s = with_past(b, u, d.d_s, d_s);
    leave(item, b, u, d, s);
}
