fn mix_c(item: u32, b: u32, u: u32) {
    if (item != NONE && u < p.hidden) {
        let at = p.c_at + b * p.hidden + u;
        c[at] = mixed(item, b, p.state + u, bitcast<f32>(p.share_c), c[at]);
    }
}
