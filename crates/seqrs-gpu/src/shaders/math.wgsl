// The functions of a cell. The built-in tanh overflows on some drivers and is inexact near 0, so
// that and the sigmoid are made of exp of numbers that are not positive.

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

// `yes` where x > 0, else (NaN too) `no`.
fn choose(x: f32, yes: f32, no: f32) -> f32 {
    return select(no, yes, x > 0.0);
}

// x cut to [low, high]; NaN stays NaN.
fn between(x: f32, low: f32, high: f32) -> f32 {
    return select(select(x, low, x < low), high, x > high);
}

// e^x - 1 for x <= 0, of t = tanh(x / 2), so that no digit cancels; above, whatever it is.
fn exp_minus_1(x: f32) -> f32 {
    let t = hyperbolic_tangent(0.5 * x);
    return (t + t) / (1.0 - t);
}

// x / (1 + |x|). It is 1 long before 1e9, and WGSL does not say what is divided by numbers near the
// largest.
fn softsign(x: f32) -> f32 {
    let near = between(x, -1e9, 1e9);
    return near / (1.0 + abs(near));
}

// log(1 + e^x) = max(x, 0) + 2 artanh(e / (2 + e)), e = e^-|x|: a logarithm would lose the digits
// of e where e is small. artanh y = y (1 + y^2/3 + y^4/5 + ...), y at most 1/3.
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let y = e / (2.0 + e);
    let s = y * y;
    var sum = 0.06666666667;
    sum = sum * s + 0.07692307692;
    sum = sum * s + 0.09090909091;
    sum = sum * s + 0.11111111111;
    sum = sum * s + 0.14285714286;
    sum = sum * s + 0.2;
    sum = sum * s + 0.33333333333;
    sum = sum * s + 1.0;
    return relu(x) + 2.0 * y * sum;
}
