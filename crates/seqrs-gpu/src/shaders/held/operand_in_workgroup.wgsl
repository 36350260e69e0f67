// What the first product of a cell with two leaves for the second when a workgroup goes through all
// steps: its operand, and what was opened, which stays with the thread of its unit.

var<private> opened: Opened;

fn leave_open(b: u32, u: u32, opening: Operand) {
    operands[(ROWS + b - first_row) * UNITS + u] = opening.value;
    opened = opening.opened;
}

fn opened_at(b: u32, u: u32) -> Opened {
    return opened;
}
