// A thread for each unit of each row: PRODUCTS sums over `depth` terms, and what is done with them.
//
//     sums[q] = start[q] + operand(row, 0) weight(q, unit, 0) + operand(row, 1) weight(q, unit, 1) ...
//     finish(row, unit, sums)
//
// What these are, says the shader that this text is put into. A workgroup has ROWS rows and UNITS
// units; CHUNK terms at a time lie in its memory. Each sum is one chain, ascending, so a row's
// numbers do not depend on which rows share its workgroup.

const THREADS = UNITS * ROWS;

var<workgroup> operand_tile: array<f32, ROWS * CHUNK>;
var<workgroup> weight_tile: array<f32, PRODUCTS * UNITS * CHUNK>;

fn tile_sums(
    first: array<f32, PRODUCTS>,
    group: vec3<u32>,
    local: vec3<u32>,
    depth: u32,
) -> array<f32, PRODUCTS> {
    var sums = first;
    let thread = local.y * UNITS + local.x;
    for (var k0 = 0u; k0 < depth; k0 += CHUNK) {
        for (var e = thread; e < ROWS * CHUNK; e += THREADS) {
            let row = group.y * ROWS + e / CHUNK;
            let k = k0 + e % CHUNK;
            var x = 0.0;
            if (row < p.rows && k < depth) {
                x = operand_at(row, k);
            }
            operand_tile[e] = x;
        }
        for (var e = thread; e < PRODUCTS * UNITS * CHUNK; e += THREADS) {
            // Neighbouring threads read neighbouring weights.
            var k = e % CHUNK;
            var column = e / CHUNK;
            if (UNITS_FIRST) {
                k = e / (PRODUCTS * UNITS);
                column = e % (PRODUCTS * UNITS);
            }
            let unit = group.x * UNITS + column % UNITS;
            var w = 0.0;
            if (unit < p.units && k0 + k < depth) {
                w = weight_at(column / UNITS, unit, k0 + k);
            }
            weight_tile[k * (PRODUCTS * UNITS) + column] = w;
        }
        workgroupBarrier();
        let terms = min(CHUNK, depth - k0);
        for (var k = 0u; k < terms; k++) {
            let x = operand_tile[local.y * CHUNK + k];
            for (var q = 0u; q < PRODUCTS; q++) {
                sums[q] = fma(x, weight_tile[(k * PRODUCTS + q) * UNITS + local.x], sums[q]);
            }
        }
        workgroupBarrier();
    }
    return sums;
}

@compute @workgroup_size(UNITS, ROWS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let u = group.x * UNITS + local.x;
    let b = group.y * ROWS + local.y;
    // All threads of a workgroup fill its memory, those too that have no sums of their own.
    let sums = tile_sums(start(u), group, local, p.depth);
    if (u < p.units && b < p.rows) {
        finish(b, u, sums);
    }
}
