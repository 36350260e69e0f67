// All of the gradient of h goes into the step.
fn split(b: u32, u: u32, d: f32) -> f32 {
    return d;
}
