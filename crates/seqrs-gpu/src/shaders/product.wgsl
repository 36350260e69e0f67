// c = a b, + bias or + c: the product of matrices with any strides.
//
// A workgroup computes 64 x 64 numbers of c, a thread 4 x 4 of them; 16 columns of a and rows of b
// at a time lie in workgroup memory, as vec4 so that a thread's operands are one load each. A sum
// is one chain over k, ascending, so it does not depend on what else is computed.

// [k][m / 4] and [k][n / 4].
var<workgroup> a_tile: array<vec4<f32>, 256>;
var<workgroup> b_tile: array<vec4<f32>, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let m0 = group.y * 64u;
    let n0 = group.x * 64u;
    let thread = local.y * 16u + local.x;
    let row = m0 + local.y * 4u;
    let column = n0 + local.x * 4u;

    var start = vec4<f32>();
    if (p.bias_at != NONE) {
        for (var j = 0u; j < 4u; j++) {
            if (column + j < p.n) {
                start[j] = bias[p.bias_at + column + j];
            }
        }
    }
    var sums = array<vec4<f32>, 4>(start, start, start, start);
    if (p.add != 0u) {
        for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j < 4u; j++) {
                if (row + i < p.m && column + j < p.n) {
                    sums[i][j] = c[p.c_at + (row + i) * p.c_m + column + j];
                }
            }
        }
    }

    for (var k0 = 0u; k0 < p.k; k0 += 16u) {
        for (var q = 0u; q < 4u; q++) {
            // Neighbouring threads read neighbouring numbers, whichever stride is 1.
            let e = q * 256u + thread;
            let along_k = vec2<u32>(e / 16u, e % 16u);
            let across = vec2<u32>(e % 64u, e / 64u);
            let i = select(across, along_k, p.a_k == 1u);
            let j = select(across, along_k, p.b_k == 1u);
            var x = 0.0;
            if (m0 + i.x < p.m && k0 + i.y < p.k) {
                x = a[p.a_at + (m0 + i.x) * p.a_m + (k0 + i.y) * p.a_k];
            }
            a_tile[i.y * 16u + i.x / 4u][i.x % 4u] = x;
            var y = 0.0;
            if (n0 + j.x < p.n && k0 + j.y < p.k) {
                y = b[p.b_at + (n0 + j.x) * p.b_n + (k0 + j.y) * p.b_k];
            }
            b_tile[j.y * 16u + j.x / 4u][j.x % 4u] = y;
        }
        workgroupBarrier();
        let depth = min(16u, p.k - k0);
        for (var k = 0u; k < depth; k++) {
            let x = a_tile[k * 16u + local.y];
            let y = b_tile[k * 16u + local.x];
            sums[0] = fma(vec4<f32>(x.x), y, sums[0]);
            sums[1] = fma(vec4<f32>(x.y), y, sums[1]);
            sums[2] = fma(vec4<f32>(x.z), y, sums[2]);
            sums[3] = fma(vec4<f32>(x.w), y, sums[3]);
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            if (row + i < p.m && column + j < p.n) {
                c[p.c_at + (row + i) * p.c_m + column + j] = sums[i][j];
            }
        }
    }
}
