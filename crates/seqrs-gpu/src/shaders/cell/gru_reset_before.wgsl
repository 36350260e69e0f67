// The GRU of the textbook, whose reset gate acts on the state before the product:
// seqrs-core/src/cell/gru.rs, line for line.

struct Gates { r: f32, z: f32, n: f32 }
struct State { h: f32 }
struct Saved { r: f32, z: f32, n: f32 }
struct Opened { r: f32, z: f32 }
struct PerUnit { nothing: f32 }

fn open(gx: Gates, gh: Gates, s: State) -> Operand {
    let r = sigmoid(gx.r + gh.r);
    let z = sigmoid(gx.z + gh.z);
    return Operand(r * s.h, Opened(r, z));
}

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let r = opened.r;
    let z = opened.z;
    let n = hyperbolic_tangent(gx.n + gh.n);
    let h = z * s.h + (1.0 - z) * n;
    return Stepped(State(h), Saved(r, z, n));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let z = saved.z;
    let n = saved.n;
    let d = Gates(0.0, d_s.h * (s.h - n) * z * (1.0 - z), d_s.h * (1.0 - z) * (1.0 - n * n));
    return Gradients(d, d, State(d_s.h * z), PerUnit(0.0));
}

fn operand(saved: Saved, s: State) -> f32 {
    return saved.r * s.h;
}

fn close(saved: Saved, s: State, d_operand: f32) -> Closed {
    let r = saved.r;
    let d_r = d_operand * s.h * r * (1.0 - r);
    return Closed(Gates(d_r, 0.0, 0.0), d_operand * r);
}
