// A workgroup has ROWS rows and all units, and goes through all steps with them: what goes from
// step to step lies in its memory, so no other workgroup has to wait for it, nor it for others.
//
// The numbers are those of one_step.wgsl, bit for bit.

// Of the step that it is at.
var<private> items_at: u32;
// Of the workgroup.
var<private> first_row: u32;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    items_at = p.items_at;
    first_row = group.y * ROWS;
    // A unit of a row is one thread's from the first step to the last.
    let row = thread / UNITS;
    let u = thread % UNITS;
    let b = first_row + row;
    let is_one = row < ROWS && b < p.rows && u < p.units;
    begin(thread);
    workgroupBarrier();
    for (var step = 0u; step < p.steps; step++) {
    // OF_A_STEP
        // The distance is that to the step before, in reverse: u32 goes round.
        items_at += p.items_step;
    }
    end(thread);
}
