// The way back of a cell without a c.

fn means_of_c(item: u32, b: u32, thread: u32) -> Means {
    return Means(0.0, 0.0);
}

fn cell_back(item: u32, b: u32, u: u32, s: State, of_c: Means) -> Gradients {
    let d_s = State(gradient_of_h(item, b, u));
    var d = backward(recorded(item, u), s, running_state(b, u), PerUnit(0.0), d_s);
    d.d_s = with_past(b, u, d.d_s, d_s);
    return d;
}
