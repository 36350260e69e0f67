// Before a step back: a row of `running` gets the share of each state that stayed, and the states
// that the step gave before these were mixed.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let place = row_and_column(group, local.x, p.hidden);
    let b = place.x;
    let u = place.y;
    if (b >= p.rows || u >= p.hidden) {
        return;
    }
    let item = items[p.items_at + b];
    if (item == NONE) {
        return;
    }
    let from_ = item * 2u * p.states;
    let stepped_at = b * p.running + p.stepped_at + u;
    let shares_at = b * p.running + p.shares_at + u;
    if (u < p.state) {
        running[stepped_at] = kept[from_ + p.states + u];
        running[shares_at] = kept[from_ + u];
    }
    if (p.states > p.state) {
        running[stepped_at + p.hidden] = kept[from_ + p.states + p.state + u];
        running[shares_at + p.hidden] = kept[from_ + p.state + u];
    }
}
