// The GRU whose reset gate acts on the product: seqrs-core/src/cell/gru.rs, line for line.

struct Gates { r: f32, z: f32, n: f32 }
struct State { h: f32 }
struct Saved { r: f32, z: f32, n: f32, m: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let r = gate(gx.r + gh.r);
    let z = gate(gx.z + gh.z);
    let n = candidate(gx.n + r.value * gh.n);
    let h = z.value * s.h + (1.0 - z.value) * n.value;
    return Stepped(State(h), Saved(r.kept, z.kept, n.kept, gh.n));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let r = gate_again(saved.r);
    let z = gate_again(saved.z);
    let n = candidate_again(saved.n);
    let d_n = d_s.h * (1.0 - z.value) * n.slope;
    let d_r = d_n * saved.m * r.slope;
    let d_z = d_s.h * (s.h - n.value) * z.slope;
    let d_gx = Gates(d_r, d_z, d_n);
    let d_gh = Gates(d_r, d_z, d_n * r.value);
    return Gradients(d_gx, d_gh, State(d_s.h * z.value), PerUnit(0.0));
}
