// Where h lies between the dispatches of two steps. h and h_new are different buffers, since every
// unit reads all of h.

fn item_of(b: u32) -> u32 {
    return items[p.items_at + b];
}

fn h_at(b: u32, u: u32) -> f32 {
    return h[b * p.h_row + u / 4u][u % 4u];
}

fn set_h(b: u32, u: u32, value: f32) {
    h_new[b * p.new_row + u] = value;
}
