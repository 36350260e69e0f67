// Where the gradients of the gates lie when a workgroup goes through all steps back.

// [row][gate][unit], with zeros behind the last unit of a gate.
var<workgroup> d_of_rows: array<f32, ROWS * GATES * UNITS>;

fn item_of(b: u32) -> u32 {
    return items[items_at + b];
}

fn place_of(b: u32, gate: u32, u: u32) -> u32 {
    return (b - first_row) * GATES * UNITS + gate * padded(p.hidden) + u;
}

fn set_d(b: u32, gate: u32, u: u32, value: f32) {
    d_of_rows[place_of(b, gate, u)] = value;
}

fn add_d(b: u32, gate: u32, u: u32, value: f32) {
    d_of_rows[place_of(b, gate, u)] += value;
}

// They are where the next step looks for them.
fn pass_on(b: u32, u: u32) {}

fn operand_at(product: u32, b: u32, k: u32) -> vec4<f32> {
    let at = place_of(b, product * FIRST_GATES, 4u * k);
    return vec4<f32>(d_of_rows[at], d_of_rows[at + 1u], d_of_rows[at + 2u], d_of_rows[at + 3u]);
}

fn begin(thread: u32) {
    let columns = 4u * p.columns;
    for (var e = thread; e < ROWS * GATES * UNITS; e += THREADS) {
        let b = first_row + e / (GATES * UNITS);
        let column = e % (GATES * UNITS);
        var value = 0.0;
        if (b < p.rows && column < columns) {
            value = d[b * columns + column];
        }
        d_of_rows[e] = value;
    }
}

fn end(thread: u32) {
    let columns = 4u * p.columns;
    for (var e = thread; e < ROWS * GATES * UNITS; e += THREADS) {
        let b = first_row + e / (GATES * UNITS);
        let column = e % (GATES * UNITS);
        if (b < p.rows && column < columns) {
            d[b * columns + column] = d_of_rows[e];
        }
    }
}
