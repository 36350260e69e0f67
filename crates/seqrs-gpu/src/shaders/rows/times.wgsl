// The element-wise product.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let i = number_of(group) * THREADS + local.x;
    if (i < p.len) {
        product[i] = a[i] * b[i];
    }
}
