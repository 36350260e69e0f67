// h shows the normalised c, which is not the c that goes on:
//
//     h = unprojected(saved, gamma hat(c) + beta)

fn cells_at(b: u32, u: u32) -> f32 {
    return c[p.c_at + b * p.units + u];
}

fn show(item: u32, b: u32, row: u32, thread: u32) {
    let of_c = moments_of_cells(b, p.hidden, thread);
    for (var u = thread; u < p.hidden; u += THREADS) {
        let hat = (cells_at(b, u) - of_c.mean) * of_c.inverse;
        record[row * p.record + (HATS + GATES) * p.hidden + u] = hat;
        let shown = parameters[p.gamma_c_at + u] * hat + parameters[p.beta_c_at + u];
        leave_h(item, b, u, unprojected(recorded(row, u), State(0.0, shown)));
    }
    if (thread == 0u) {
        record[row * p.record + INVERSES * p.hidden + 1u] = of_c.inverse;
    }
}
