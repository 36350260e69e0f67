// What sums without a bias start from.

fn start(u: u32) -> array<f32, PRODUCTS> {
    return array<f32, PRODUCTS>();
}
