// Without a c the h that goes on is the one that is shown.

fn show(item: u32, b: u32, row: u32, thread: u32) {}
