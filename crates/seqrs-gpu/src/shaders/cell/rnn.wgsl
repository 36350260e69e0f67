// The recurrent network of Elman: seqrs-core/src/cell/rnn.rs, line for line. `value` and `slope`
// stand in rnn_tanh.wgsl and rnn_relu.wgsl.

struct Gates { a: f32 }
struct State { h: f32 }
struct Saved { nothing: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let h = value(gx.a + gh.a);
    return Stepped(State(h), Saved(0.0));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let d_a = d_s.h * slope(s_new.h);
    return Gradients(Gates(d_a), Gates(d_a), State(0.0), PerUnit(0.0));
}
