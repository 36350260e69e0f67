// Of the gradient of h the part that goes into the step; the rest stays in `running`.
fn split(b: u32, u: u32, d: f32) -> f32 {
    let share = share_of_h(b, u);
    running[b * p.running + u] = share * d;
    return (1.0 - share) * d;
}
