// log(1 + x) for x >= 0: near 0 its series, as 1 + x would lose the digits of x.
fn log_1p(x: f32) -> f32 {
    let series = x * (1.0 - x * (0.5 - x * (0.33333333 - x * (0.25 - x * 0.2))));
    return select(log(1.0 + x), series, x < 0.02);
}
