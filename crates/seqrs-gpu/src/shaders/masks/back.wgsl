// The way back of what is done to states besides the cell. A row of `running` ends with the mask of
// the row and the shares of h and c that stayed, H each.

// Of what a product gives back to h'.
fn through_mask(b: u32, u: u32, d: f32) -> f32 {
    return running[(b + 1u) * p.running - 3u * p.hidden + u] * d;
}

fn share_of_h(b: u32, u: u32) -> f32 {
    return running[(b + 1u) * p.running - 2u * p.hidden + u];
}

fn share_of_c(b: u32, u: u32) -> f32 {
    return running[(b + 1u) * p.running - p.hidden + u];
}
