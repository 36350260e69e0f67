// The way back of show.wgsl, and of the cell: through the gates that show c, and through its norm
// to the c that goes on.

fn shown(item: u32, u: u32) -> State {
    let hat = hat_at(item, GATES * p.hidden + u);
    return State(0.0, parameters[p.gamma_c_at + u] * hat + parameters[p.beta_c_at + u]);
}

fn shown_back(item: u32, b: u32, u: u32) -> Unprojected {
    return unprojected_back(recorded(item, u), shown(item, u), gradient_of_h(item, b, u));
}

fn means_of_c(item: u32, b: u32, thread: u32) -> Means {
    var sum = 0.0;
    var dot = 0.0;
    for (var u = thread; u < p.hidden; u += THREADS) {
        let d_c = shown_back(item, b, u).d_c;
        d_gates[item * p.d_gates + (D_SUMS + GATES) * p.hidden + u] = d_c;
        let g = parameters[p.gamma_c_at + u] * d_c;
        sum += g;
        dot += g * hat_at(item, GATES * p.hidden + u);
    }
    return means(sum, dot, p.hidden, thread);
}

fn cell_back(item: u32, b: u32, u: u32, s: State, of_c: Means) -> Gradients {
    let saved = recorded(item, u);
    let back = shown_back(item, b, u);
    let g = parameters[p.gamma_c_at + u] * back.d_c;
    let through = norm_back(g, hat_at(item, GATES * p.hidden + u), of_c, inverse_at(item, 1u));
    let d_past = running_gradient(b, u);
    let d_s = State(0.0, into_step(b, u, d_past).c + through);
    var d = backward(saved, s, shown(item, u), PerUnit(0.0), d_s);
    d.d_s = with_past(b, u, d.d_s, d_past);
    d.d_gx = plus(d.d_gx, back.d_g);
    d.d_gh = plus(d.d_gh, back.d_g);
    leave_m(item, u, unprojected(saved, shown(item, u)));
    return d;
}
