// Where the operands of the products lie when a workgroup goes through all steps: h is that of the
// first.

// [product][row][unit], with zeros behind the last unit.
var<workgroup> operands: array<f32, OPERANDS * ROWS * UNITS>;

fn item_of(b: u32) -> u32 {
    return items[items_at + b];
}

fn h_at(b: u32, u: u32) -> f32 {
    return operands[(b - first_row) * UNITS + u];
}

fn set_h(b: u32, u: u32, value: f32) {
    operands[(b - first_row) * UNITS + u] = value;
}

fn operand_at(product: u32, b: u32, k: u32) -> vec4<f32> {
    let at = (product * ROWS + b - first_row) * UNITS + 4u * k;
    return vec4<f32>(operands[at], operands[at + 1u], operands[at + 2u], operands[at + 3u]);
}

fn begin(thread: u32) {
    for (var e = thread; e < OPERANDS * ROWS * UNITS; e += THREADS) {
        let b = first_row + e / UNITS;
        let u = e % UNITS;
        var value = 0.0;
        if (e < ROWS * UNITS && b < p.rows && u < p.units) {
            value = h[b * padded(p.units) + u];
        }
        operands[e] = value;
    }
}

fn end(thread: u32) {
    for (var e = thread; e < ROWS * UNITS; e += THREADS) {
        let b = first_row + e / UNITS;
        let u = e % UNITS;
        if (b < p.rows && u < p.units) {
            h[b * padded(p.units) + u] = operands[e];
        }
    }
}
