// Long short-term memory with coupled gates: `LstmCoupled` of seqrs-core/src/cell/lstm_coupled.rs,
// line for line.

struct Gates { i: f32, g: f32, o: f32 }
struct State { h: f32, c: f32 }
struct Saved { i: f32, g: f32, o: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let i = gate(gx.i + gh.i);
    let g = candidate(gx.g + gh.g);
    let o = gate(gx.o + gh.o);
    let c = (1.0 - i.value) * s.c + i.value * g.value;
    let h = o.value * output(c);
    return Stepped(State(h, c), Saved(i.kept, g.kept, o.kept));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let i = gate_again(saved.i);
    let g = candidate_again(saved.g);
    let o = gate_again(saved.o);
    let t = output_sloped(s_new.c);
    let d_c = d_s.c + d_s.h * o.value * t.slope;
    let d = Gates(
        d_c * (g.value - s.c) * i.slope,
        d_c * i.value * g.slope,
        d_s.h * t.value * o.slope,
    );
    return Gradients(d, d, State(0.0, d_c * (1.0 - i.value)), PerUnit(0.0));
}

fn unprojected(saved: Saved, s_new: State) -> f32 {
    return gate_again(saved.o).value * output(s_new.c);
}

fn unprojected_back(saved: Saved, s_new: State, d_h: f32) -> Unprojected {
    let o = gate_again(saved.o);
    let t = output_sloped(s_new.c);
    return Unprojected(Gates(0.0, 0.0, d_h * t.value * o.slope), d_h * o.value * t.slope);
}
