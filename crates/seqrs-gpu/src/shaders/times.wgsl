// The element-wise product.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let i = (group.y * 32768u + group.x) * 64u + local.x;
    if (i < p.len) {
        product[i] = a[i] * b[i];
    }
}
