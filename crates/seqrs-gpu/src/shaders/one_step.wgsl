// A workgroup has ROWS rows and UNITS units of one step: their sums, and what is done with them.

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let product = Product(0u, PRODUCTS, p.weights_at, p.depth);
    let first_row = group.y * ROWS;
    add_up(product, group.x, first_row, thread);
    workgroupBarrier();
    for (var e = thread; e < ROWS * UNITS; e += THREADS) {
        let b = first_row + e / UNITS;
        let u = group.x * UNITS + e % UNITS;
        if (b < p.rows && u < p.units) {
            FINISH(b, u, sums_of(product, group.x, e / UNITS, e % UNITS));
        }
    }
}
