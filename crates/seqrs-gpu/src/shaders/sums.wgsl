// Sums for a tile of rows and units, which a workgroup adds up:
//
//     sum(row, column) = operand(row, 0) weights(0, column) + operand(row, 1) weights(1, column) ...
//
// A column is a gate of four neighbouring units, so that a load of weights is a vec4, as is one of
// four terms of an operand (pack.wgsl says how they lie). A thread has one column, SHARE rows and a
// part of the terms, and keeps its sums in registers. Nothing is staged: the threads of a workgroup
// that read the same weights or operands find them in the cache. The parts meet in workgroup memory.
//
// The order of a sum depends on the number of its terms alone, so a row's numbers do not depend on
// which rows share its workgroup, nor on the tile: the terms are cut in SLICES, each slice is one
// chain, four slices are added one after the other, and so are the four sums of those.

const SLICES = 16u;
const SHARES = ROWS / SHARE;

struct Product {
    // Which of a cell's two, its gates, where its weights begin, and a fourth of its terms.
    number: u32,
    gates: u32,
    weights_at: u32,
    depth: u32,
}

// [part][row][column].
var<workgroup> partial: array<vec4<f32>, PARTS * ROWS * PRODUCTS * GROUPS>;

// Columns in a row of weights.
fn width_of(product: Product) -> u32 {
    return padded(p.units) / 4u * product.gates;
}

// A thread's part of the sums of a tile.
fn add_up(product: Product, tile: u32, first_row: u32, thread: u32) {
    let columns = GROUPS * product.gates;
    let column = thread % columns;
    let row = thread / columns % SHARES * SHARE;
    let part = thread / columns / SHARES;
    if (part >= PARTS) {
        return;
    }
    let width = width_of(product);
    let of_all = tile * columns + column;
    var total = array<vec4<f32>, SHARE>();
    if (of_all < width) {
        for (var s = 0u; s < SLICES / PARTS; s++) {
            let slice = part * (SLICES / PARTS) + s;
            let end = (slice + 1u) * product.depth / SLICES;
            var sums = array<vec4<f32>, SHARE>();
            for (var k = slice * product.depth / SLICES; k < end; k++) {
                let at = product.weights_at + 4u * k * width + of_all;
                let w0 = weights[at];
                let w1 = weights[at + width];
                let w2 = weights[at + 2u * width];
                let w3 = weights[at + 3u * width];
                for (var r = 0u; r < SHARE; r++) {
                    // What a row beyond the last gets, nobody reads.
                    let b = min(first_row + row + r, p.rows - 1u);
                    let x = operand_at(product.number, b, k);
                    sums[r] = fma(vec4<f32>(x.x), w0, sums[r]);
                    sums[r] = fma(vec4<f32>(x.y), w1, sums[r]);
                    sums[r] = fma(vec4<f32>(x.z), w2, sums[r]);
                    sums[r] = fma(vec4<f32>(x.w), w3, sums[r]);
                }
            }
            for (var r = 0u; r < SHARE; r++) {
                total[r] += sums[r];
            }
        }
    }
    for (var r = 0u; r < SHARE; r++) {
        partial[(part * ROWS + row + r) * columns + column] = total[r];
    }
}

// The sums of a unit's gates and their biases; row and unit are counted in the tile.
fn sums_of(product: Product, tile: u32, row: u32, unit: u32) -> array<f32, PRODUCTS> {
    let columns = GROUPS * product.gates;
    let biases_at = product.weights_at + 4u * product.depth * width_of(product) + tile * columns;
    var sums = array<f32, PRODUCTS>();
    for (var gate = 0u; gate < product.gates; gate++) {
        let column = unit / 4u * product.gates + gate;
        var sum = 0.0;
        for (var quarter = 0u; quarter < 4u; quarter++) {
            var four = 0.0;
            for (var i = 0u; i < PARTS / 4u; i++) {
                let part = quarter * (PARTS / 4u) + i;
                four += partial[(part * ROWS + row) * columns + column][unit % 4u];
            }
            sum += four;
        }
        sums[gate] = weights[biases_at + column][unit % 4u] + sum;
    }
    return sums;
}
