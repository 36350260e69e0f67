// Cross-entropy of the softmax, a workgroup for each row, and its gradient:
//
//     m = max x      r = sum over j != class of e^(x_j - m)      s = r + e^(x_class - m)
//     L = log s - (x_class - m)      d_j = e^(x_j - m) / s,  d_class = -r / s
//
// r is a sum of its own, so a loss and a gradient that are nearly zero keep their digits.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = number_of(group);
    if (row >= p.rows) {
        return;
    }
    let start = row * p.width;
    let class_ = classes[row];
    var most = LEAST;
    for (var j = local.x; j < p.width; j += THREADS) {
        most = max(most, x[start + j]);
    }
    most = largest_of_all(most, local.x);
    var others = 0.0;
    for (var j = local.x; j < p.width; j += THREADS) {
        if (j != class_) {
            others += exp(x[start + j] - most);
        }
    }
    let r = sum_of_all(others, local.x);
    let at_class = x[start + class_] - most;
    let e = exp(at_class);
    let s = r + e;
    let factor = bitcast<f32>(p.scale) / s;
    for (var j = local.x; j < p.width; j += THREADS) {
        d_x[start + j] = select(exp(x[start + j] - most), -r, j == class_) * factor;
    }
    if (local.x == 0u) {
        losses[row] = select(log(s), log_1p(r), at_class == 0.0) - at_class;
    }
}
