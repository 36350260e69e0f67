// Long short-term memory whose gates see the cell state: seqrs-core/src/cell/lstm_peephole.rs, line
// for line.

struct Gates { i: f32, f: f32, g: f32, o: f32 }
struct State { h: f32, c: f32 }
struct Saved { i: f32, f: f32, g: f32, o: f32 }
struct Opened { nothing: f32 }
struct PerUnit { ci: f32, cf: f32, co: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let i = sigmoid(gx.i + gh.i + p.ci * s.c);
    let f = sigmoid(gx.f + gh.f + p.cf * s.c);
    let g = hyperbolic_tangent(gx.g + gh.g);
    let c = f * s.c + i * g;
    let o = sigmoid(gx.o + gh.o + p.co * c);
    let h = o * hyperbolic_tangent(c);
    return Stepped(State(h, c), Saved(i, f, g, o));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let i = saved.i;
    let f = saved.f;
    let g = saved.g;
    let o = saved.o;
    let t = hyperbolic_tangent(s_new.c);
    let d_o = d_s.h * t * o * (1.0 - o);
    let d_c = d_s.c + d_s.h * o * (1.0 - t * t) + d_o * p.co;
    let d = Gates(
        d_c * g * i * (1.0 - i),
        d_c * s.c * f * (1.0 - f),
        d_c * i * (1.0 - g * g),
        d_o,
    );
    let d_before = State(0.0, d_c * f + d.i * p.ci + d.f * p.cf);
    return Gradients(d, d, d_before, PerUnit(d.i * s.c, d.f * s.c, d_o * s_new.c));
}

fn unprojected(saved: Saved, s_new: State) -> f32 {
    return saved.o * hyperbolic_tangent(s_new.c);
}
