// The functions of the gates. The built-in tanh overflows on some drivers and is inexact near 0,
// so both are made of exp of numbers that are not positive.

fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}

// Below 0.625 the odd polynomial of Cephes (tanhf), above (1 - e^-2|x|) / (1 + e^-2|x|).
fn hyperbolic_tangent(x: f32) -> f32 {
    let a = abs(x);
    let e = exp(-2.0 * a);
    let large = (1.0 - e) / (1.0 + e);
    let s = x * x;
    var p = -5.70498872745e-3;
    p = p * s + 2.06390887954e-2;
    p = p * s - 5.37397155531e-2;
    p = p * s + 1.33314422036e-1;
    p = p * s - 3.33332819422e-1;
    return select(select(large, -large, x < 0.0), x + x * s * p, a < 0.625);
}

// max(x, 0) and its derivative; NaN stays NaN.
fn relu(x: f32) -> f32 {
    return select(x, 0.0, x < 0.0);
}

fn heaviside(x: f32) -> f32 {
    return select(select(x, 0.0, x <= 0.0), 1.0, x > 0.0);
}
