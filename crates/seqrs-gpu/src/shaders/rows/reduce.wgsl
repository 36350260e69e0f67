// Sums and maxima over the threads of a workgroup, as a tree: always in the same order.

var<workgroup> partial: array<f32, THREADS>;

fn sum_of_all(value: f32, thread: u32) -> f32 {
    partial[thread] = value;
    workgroupBarrier();
    for (var side = THREADS / 2u; side > 0u; side /= 2u) {
        if (thread < side) {
            partial[thread] += partial[thread + side];
        }
        workgroupBarrier();
    }
    let total = partial[0];
    workgroupBarrier();
    return total;
}

fn largest_of_all(value: f32, thread: u32) -> f32 {
    partial[thread] = value;
    workgroupBarrier();
    for (var side = THREADS / 2u; side > 0u; side /= 2u) {
        if (thread < side) {
            partial[thread] = max(partial[thread], partial[thread + side]);
        }
        workgroupBarrier();
    }
    let largest = partial[0];
    workgroupBarrier();
    return largest;
}
