// c = a b, + bias or + c: the product of matrices with any strides.
//
// A workgroup computes 64 x 64 numbers of c, a thread 4 x 4 of them; 16 columns of a and rows of b
// at a time lie in workgroup memory, as vec4 so that a thread's operands are one load each. A sum
// is one chain over k, ascending, so it does not depend on what else is computed.
//
// Where c has few numbers and a sum many terms, these are shared between `splits` workgroups, which
// have a c each. Blocks of 16 terms go round between them, counted from the first of all terms, of
// which `k_first` came before: a sum that goes on in a later product has the same order as a whole.

// [k][m / 4] and [k][n / 4].
var<workgroup> a_tile: array<vec4<f32>, 256>;
var<workgroup> b_tile: array<vec4<f32>, 256>;

fn a_at(m: u32, k: u32) -> f32 {
    if (m < p.m && k >= p.k_first && k - p.k_first < p.k) {
        return a[p.a_at + m * p.a_m + (k - p.k_first) * p.a_k];
    }
    return 0.0;
}

fn b_at(k: u32, n: u32) -> f32 {
    if (n < p.n && k >= p.k_first && k - p.k_first < p.k) {
        return b[p.b_at + (k - p.k_first) * p.b_k + n * p.b_n];
    }
    return 0.0;
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let m0 = group.y * 64u;
    let n0 = group.x * 64u;
    let c_at = p.c_at + group.z * p.c_split;
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
                    sums[i][j] = c[c_at + (row + i) * p.c_m + column + j];
                }
            }
        }
    }

    // A thread fetches four numbers of each: neighbouring threads have neighbours, whichever stride
    // is 1.
    let along_k = vec2<u32>(thread / 16u, thread % 16u);
    let a_place = select(along_k.yx, along_k, p.a_k == 1u);
    let b_place = select(along_k.yx, along_k, p.b_k == 1u);
    let end = p.k_first + p.k;
    let first_block = p.k_first / 16u;
    // The first of its blocks that is not before the first term.
    let skip = (group.z + p.splits - first_block % p.splits) % p.splits;
    for (var k0 = (first_block + skip) * 16u; k0 < end; k0 += 16u * p.splits) {
        let m = m0 + 4u * a_place.x;
        let n = n0 + 4u * b_place.x;
        let ak = k0 + a_place.y;
        let bk = k0 + b_place.y;
        a_tile[a_place.y * 16u + a_place.x] =
            vec4<f32>(a_at(m, ak), a_at(m + 1u, ak), a_at(m + 2u, ak), a_at(m + 3u, ak));
        b_tile[b_place.y * 16u + b_place.x] =
            vec4<f32>(b_at(bk, n), b_at(bk, n + 1u), b_at(bk, n + 2u), b_at(bk, n + 3u));
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
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
                c[c_at + (row + i) * p.c_m + column + j] = sums[i][j];
            }
        }
    }
}
