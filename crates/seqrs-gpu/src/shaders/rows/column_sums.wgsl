// to[j] = the sum of column j over all rows, ascending, or that and what is in to[j].
//
// Many rows are shared between `splits` threads, which have a row of sums each: blocks of 16 rows
// go round between them as in product.wgsl.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.columns);
    let split = place.x;
    let j = place.y;
    if (split >= p.splits || j >= p.columns) {
        return;
    }
    let to_j = p.to_at + split * p.columns + j;
    var sum = 0.0;
    if (p.add != 0u) {
        sum = to[to_j];
    }
    let end = p.first + p.rows;
    let first_block = p.first / 16u;
    let skip = (split + p.splits - first_block % p.splits) % p.splits;
    for (var i0 = (first_block + skip) * 16u; i0 < end; i0 += 16u * p.splits) {
        for (var i = max(i0, p.first); i < min(i0 + 16u, end); i++) {
            let row = i - p.first;
            let e = p.from_at + row * p.stride + j;
            sum += TERM;
        }
    }
    to[to_j] = sum;
}
