// The GRU of the textbook, whose reset gate acts on the state before the product:
// seqrs-core/src/cell/gru.rs, line for line.

struct Gates { r: f32, z: f32, n: f32 }
struct State { h: f32 }
struct Saved { r: f32, z: f32, n: f32 }
struct Opened { r: f32, z: f32 }
struct PerUnit { nothing: f32 }

fn open(gx: Gates, gh: Gates, s: State) -> Operand {
    let r = gate(gx.r + gh.r);
    let z = gate(gx.z + gh.z);
    return Operand(r.value * s.h, Opened(r.kept, z.kept));
}

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let z = gate_again(opened.z).value;
    let n = candidate(gx.n + gh.n);
    let h = z * s.h + (1.0 - z) * n.value;
    return Stepped(State(h), Saved(opened.r, opened.z, n.kept));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let z = gate_again(saved.z);
    let n = candidate_again(saved.n);
    let d = Gates(
        0.0,
        d_s.h * (s.h - n.value) * z.slope,
        d_s.h * (1.0 - z.value) * n.slope,
    );
    return Gradients(d, d, State(d_s.h * z.value), PerUnit(0.0));
}

fn operand(saved: Saved, s: State) -> f32 {
    return gate_again(saved.r).value * s.h;
}

fn close(saved: Saved, s: State, d_operand: f32) -> Closed {
    let r = gate_again(saved.r);
    return Closed(Gates(d_operand * s.h * r.slope, 0.0, 0.0), d_operand * r.value);
}
