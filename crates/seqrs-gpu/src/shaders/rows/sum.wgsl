// Sums of segments, a workgroup each: of numbers, or of their squares; or the root of a sum.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = number_of(group) * p.segment;
    let end = min(first + p.segment, p.len);
    var sum = 0.0;
    for (var i = first + local.x; i < end; i += THREADS) {
        let x = from_[i];
        sum += select(x, x * x, p.squares != 0u);
    }
    sum = sum_of_all(sum, local.x);
    if (local.x == 0u) {
        to[p.to_at + number_of(group)] = select(sum, sqrt(sum), p.root != 0u);
    }
}
