// Where the gradients of the gates lie between the dispatches of two steps back: d_after has those
// of the step after, d_new those of this one. A gate has a multiple of four numbers.

fn item_of(b: u32) -> u32 {
    return items[p.items_at + b];
}

fn set_d(b: u32, gate: u32, u: u32, value: f32) {
    d_new[b * 4u * p.columns + gate * padded(p.hidden) + u] = value;
}

// A row that is not live hands on what it was given.
fn pass_on(b: u32, u: u32) {
    for (var gate = 0u; gate < GATES; gate++) {
        let at = gate * padded(p.hidden) + u;
        d_new[b * 4u * p.columns + at] = d_after[b * p.columns + at / 4u][at % 4u];
    }
}
