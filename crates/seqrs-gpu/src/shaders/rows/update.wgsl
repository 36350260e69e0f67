// One step of an optimiser: seqrs/src/optimizers.rs. `report` has the loss and the norm of the
// gradient; where either is not finite (by its bits) nothing changes, and the host says so.

fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}

fn number(word: u32) -> f32 {
    return bitcast<f32>(word);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let i = number_of(group) * THREADS + local.x;
    if (i >= p.len || !is_finite(report[0]) || !is_finite(report[1])) {
        return;
    }
    var g = gradients[i];
    let norm = report[1];
    if (norm > number(p.clip_norm)) {
        g *= number(p.clip_norm) / norm;
    }
    g = clamp(g, -number(p.clip_value), number(p.clip_value));
    UPDATE
}
