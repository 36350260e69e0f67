// A row of `kept` has for each state the share of it that stays, which is there if it was drawn,
// and behind those what the step gave.
fn kept_of(item: u32, column: u32, share: f32, stepped: f32) -> f32 {
    let at = item * 2u * p.states + column;
    if (p.is_drawn == 0u) {
        kept[at] = share;
    }
    kept[at + p.states] = stepped;
    return kept[at];
}
