// Copies rows of `width` numbers from one stride to another, or by a table of where each begins;
// a row whose place is NONE is left out.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.width);
    let row = place.x;
    let column = place.y;
    if (row >= p.rows || column >= p.width) {
        return;
    }
    var from_row = p.from_at + row * p.from_stride;
    if (p.from_stride == NONE) {
        from_row = places[row];
        if (from_row == NONE) {
            return;
        }
    }
    var to_row = p.to_at + row * p.to_stride;
    if (p.to_stride == NONE) {
        to_row = places[row];
        if (to_row == NONE) {
            return;
        }
    }
    to[to_row + column] = from_[from_row + column];
}
