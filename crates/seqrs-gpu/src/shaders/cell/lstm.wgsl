// Long short-term memory: seqrs-core/src/cell/lstm.rs, line for line.

struct Gates { i: f32, f: f32, g: f32, o: f32 }
struct State { h: f32, c: f32 }
struct Saved { i: f32, f: f32, g: f32, o: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let i = sigmoid(gx.i + gh.i);
    let f = sigmoid(gx.f + gh.f);
    let g = hyperbolic_tangent(gx.g + gh.g);
    let o = sigmoid(gx.o + gh.o);
    let c = f * s.c + i * g;
    let h = o * hyperbolic_tangent(c);
    return Stepped(State(h, c), Saved(i, f, g, o));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let i = saved.i;
    let f = saved.f;
    let g = saved.g;
    let o = saved.o;
    let t = hyperbolic_tangent(s_new.c);
    let d_c = d_s.c + d_s.h * o * (1.0 - t * t);
    let d = Gates(
        d_c * g * i * (1.0 - i),
        d_c * s.c * f * (1.0 - f),
        d_c * i * (1.0 - g * g),
        d_s.h * t * o * (1.0 - o),
    );
    return Gradients(d, d, State(0.0, d_c * f), PerUnit(0.0));
}

fn unprojected(saved: Saved, s_new: State) -> f32 {
    return saved.o * hyperbolic_tangent(s_new.c);
}
