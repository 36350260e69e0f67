// After a step: zoneout mixes each state with the one before it, and what the next products read is
// h times the row's mask.
//
//     h = k h' + (1 - k) h,  c likewise        seen = m h
//
// `before` has the states of each row before the step, h and then c. A row that is not live keeps
// its states, but h has moved.

fn mixed(item: u32, b: u32, column: u32, share: f32, stepped: f32) -> f32 {
    let k = kept_of(item, column, share, stepped);
    let at = b * p.states + column;
    let state = select(k * before[at] + (1.0 - k) * stepped, stepped, k == 0.0);
    before[at] = state;
    return state;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.hidden);
    let b = place.x;
    let u = place.y;
    if (b >= p.rows) {
        return;
    }
    let item = items[p.items_at + b];
    if (u < p.state) {
        let at = b * p.h_row + u;
        if (item != NONE) {
            h[at] = mixed(item, b, u, bitcast<f32>(p.share_h), h[at]);
            y[p.y_at + item * p.y_stride + u] = h[at];
        }
        if (p.seen_at != NONE) {
            h[at + p.seen_at] = mask[b * p.state + u] * h[at];
        }
    }
    mix_c(item, b, u);
}
