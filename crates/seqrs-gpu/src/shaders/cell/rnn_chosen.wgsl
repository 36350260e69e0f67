// The recurrent network of Elman with a chosen function: `RnnChosen` of seqrs-core/src/cell/rnn.rs,
// line for line.

struct Gates { a: f32 }
struct State { h: f32 }
struct Saved { a: f32 }
struct Opened { nothing: f32 }
struct PerUnit { nothing: f32 }

fn forward(gx: Gates, gh: Gates, s: State, opened: Opened, p: PerUnit) -> Stepped {
    let h = candidate(gx.a + gh.a);
    return Stepped(State(h.value), Saved(h.kept));
}

fn backward(saved: Saved, s: State, s_new: State, p: PerUnit, d_s: State) -> Gradients {
    let d_a = d_s.h * candidate_again(saved.a).slope;
    return Gradients(Gates(d_a), Gates(d_a), State(0.0), PerUnit(0.0));
}
