// Functions that were chosen, and a bound for their arguments: `Function` and `Chosen` of
// seqrs-core/src/cell/functions.rs, line for line. GATE, CANDIDATE, OUTPUT, IS_CUT and CLIP are
// written by functions.rs; what a constant does not choose is no part of what a driver makes of it.

const Relu = 0u;
const Tanh = 1u;
const Sigmoid = 2u;
const Affine = 3u;
const LeakyRelu = 4u;
const ThresholdedRelu = 5u;
const ScaledTanh = 6u;
const HardSigmoid = 7u;
const Elu = 8u;
const Softsign = 9u;
const Softplus = 10u;

struct Function { name: u32, alpha: f32, beta: f32 }

fn value_of(x: f32, function: Function) -> f32 {
    let alpha = function.alpha;
    let beta = function.beta;
    switch function.name {
        case Relu: { return relu(x); }
        case Tanh: { return hyperbolic_tangent(x); }
        case Sigmoid: { return sigmoid(x); }
        case Affine: { return alpha * x + beta; }
        case LeakyRelu: { return choose(-x, alpha * x, x); }
        case ThresholdedRelu: { return choose(alpha - x, 0.0, x); }
        case ScaledTanh: { return alpha * hyperbolic_tangent(beta * x); }
        case HardSigmoid: { return between(alpha * x + beta, 0.0, 1.0); }
        case Elu: { return choose(-x, alpha * exp_minus_1(x), x); }
        case Softsign: { return softsign(x); }
        // Softplus: every switch has a default.
        default: { return softplus(x); }
    }
}

fn slope_of(x: f32, value: f32, function: Function) -> f32 {
    let alpha = function.alpha;
    let beta = function.beta;
    switch function.name {
        case Relu: { return heaviside(x); }
        case Tanh: { return 1.0 - value * value; }
        case Sigmoid: { return value * (1.0 - value); }
        case Affine: { return alpha; }
        case LeakyRelu: { return choose(-x, alpha, 1.0); }
        case ThresholdedRelu: { return choose(alpha - x, 0.0, 1.0); }
        case ScaledTanh: {
            let t = hyperbolic_tangent(beta * x);
            return alpha * beta * (1.0 - t * t);
        }
        case HardSigmoid: {
            let y = alpha * x + beta;
            return alpha * (heaviside(y) * heaviside(1.0 - y));
        }
        case Elu: { return choose(-x, value + alpha, 1.0); }
        case Softsign: {
            let rest = 1.0 - abs(value);
            return rest * rest;
        }
        // Softplus.
        default: { return sigmoid(x); }
    }
}

fn sloped_of(x: f32, function: Function) -> Sloped {
    let value = value_of(x, function);
    return Sloped(value, slope_of(x, value, function));
}

fn cut(sum: f32) -> f32 {
    if (IS_CUT) {
        return between(sum, -CLIP, CLIP);
    }
    return sum;
}

fn again(function: Function, sum: f32) -> Sloped {
    let found = sloped_of(cut(sum), function);
    if (IS_CUT) {
        let beyond = heaviside(abs(sum) - CLIP);
        return Sloped(found.value, found.slope * (1.0 - beyond));
    }
    return found;
}

fn gate(sum: f32) -> Kept {
    return Kept(value_of(cut(sum), GATE), sum);
}

fn gate_again(sum: f32) -> Sloped {
    return again(GATE, sum);
}

fn candidate(sum: f32) -> Kept {
    return Kept(value_of(cut(sum), CANDIDATE), sum);
}

fn candidate_again(sum: f32) -> Sloped {
    return again(CANDIDATE, sum);
}

fn output(c: f32) -> f32 {
    return value_of(c, OUTPUT);
}

fn output_sloped(c: f32) -> Sloped {
    return sloped_of(c, OUTPUT);
}
