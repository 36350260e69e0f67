// What the functions of a cell give: the contract of seqrs-core/src/cell/mod.rs.

struct Stepped { s: State, saved: Saved }
struct Operand { value: f32, opened: Opened }
struct Gradients { d_gx: Gates, d_gh: Gates, d_s: State, d_p: PerUnit }
struct Closed { d_g: Gates, d_h: f32 }
struct Unprojected { d_g: Gates, d_c: f32 }

// What the functions in a cell give: that of seqrs-core/src/cell/functions.rs.

struct Kept { value: f32, kept: f32 }
struct Sloped { value: f32, slope: f32 }
