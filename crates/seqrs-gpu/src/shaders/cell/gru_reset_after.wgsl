// The GRU whose reset gate acts on the product: seqrs-core/src/cell/gru.rs, line for line.

struct Gates { r: f32, z: f32, n: f32 }
struct State { h: f32 }
struct Saved { r: f32, z: f32, n: f32, m: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let r = sigmoid(gx.r + gh.r);
    let z = sigmoid(gx.z + gh.z);
    let n = hyperbolic_tangent(gx.n + r * gh.n);
    let h = z * s.h + (1.0 - z) * n;
    return Stepped(State(h), Saved(r, z, n, gh.n));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let r = saved.r;
    let z = saved.z;
    let n = saved.n;
    let d_n = d_s.h * (1.0 - z) * (1.0 - n * n);
    let d_r = d_n * saved.m * r * (1.0 - r);
    let d_z = d_s.h * (s.h - n) * z * (1.0 - z);
    let d_gx = Gates(d_r, d_z, d_n);
    let d_gh = Gates(d_r, d_z, d_n * r);
    return Gradients(d_gx, d_gh, State(d_s.h * z), PerUnit(0.0));
}
