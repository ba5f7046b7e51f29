// Sixteen float32 lanes: the vector words that every other header is written in (see lanes_avx2.h for their twins).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "call.h"
#ifdef RLS_EMULATE
#include "emulated_avx512.h"
#endif

namespace rls::RLS_ISA {

using vec = __m512;
// Four bytes of a packed operand: one float32, or two neighbouring bfloat16.
using unit = uint32_t;

constexpr int LANES = 16;
// Register tile of the matrix products: 6 x 4 accumulators, 4 operands and a broadcast fill 29 of 32 registers.
constexpr int TILE_ROWS = 6;
constexpr int TILE_VECTORS = 4;

inline vec load(const void* p) { return _mm512_loadu_ps(p); }
inline void store(void* p, vec a) { _mm512_storeu_ps(p, a); }
inline vec broadcast(float a) { return _mm512_set1_ps(a); }
inline vec broadcast_unit(const unit* p) { return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p))); }
// The same vector, kept in its register: gcc would load it again for each use, and there loads are what runs out.
inline vec hold(vec a) {
#ifndef RLS_EMULATE
    asm("" : "+v"(a));
#endif
    return a;
}
inline vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
inline vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
inline vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
inline vec fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
inline vec max(vec a, vec b) { return _mm512_max_ps(a, b); }
inline vec min(vec a, vec b) { return _mm512_min_ps(a, b); }
inline float reduce_add(vec a) { return _mm512_reduce_add_ps(a); }
inline float reduce_max(vec a) { return _mm512_reduce_max_ps(a); }
inline bool any_greater(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }

inline __mmask16 first_lanes(int64_t n) {
    return n >= LANES ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}

// Lanes below `n` from a, the others from b; any n.
inline vec first(int64_t n, vec a, vec b) { return _mm512_mask_blend_ps(first_lanes(n), b, a); }

// 2^a within 2e-7 relative, 0 at -inf.
inline vec exp2(vec a) {
    const vec whole = _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const vec part = sub(a, whole);
    vec p = broadcast(1.5403530e-4f);
    p = fma(p, part, broadcast(1.3333558e-3f));
    p = fma(p, part, broadcast(9.6181291e-3f));
    p = fma(p, part, broadcast(5.5504109e-2f));
    p = fma(p, part, broadcast(2.4022651e-1f));
    p = fma(p, part, broadcast(6.9314718e-1f));
    p = fma(p, part, broadcast(1.0f));
    return _mm512_scalef_ps(p, whole);
}

// Reads `n` >= 1 elements at `p` as float32; lanes past n are 0 and their memory is not touched.
template <int DTYPE>
inline vec load_elements(const void* p, int64_t n) {
    const __mmask16 kept = first_lanes(n);
    if constexpr (DTYPE == RLS_FLOAT32) return _mm512_maskz_loadu_ps(kept, p);
    const __m256i half = _mm256_maskz_loadu_epi16(kept, p);
    if constexpr (DTYPE == RLS_FLOAT16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Widens 2 x LANES bfloat16 into even and odd elements: one cheap instruction each, where widening in order takes two.
inline void widen_bfloat16(const void* p, vec& even, vec& odd) {
    const __m512i both = _mm512_loadu_si512(p);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// Even and odd lanes back in order.
inline void interleave(vec& even, vec& odd) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const vec first_half = _mm512_permutex2var_ps(even, low, odd);
    odd = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd);
    even = first_half;
}

// Rounds to nearest even, as torch does; NaN stays NaN.
inline __m256i to_bfloat16(vec a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i safe = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(safe, 16));
}

// Writes the first `n` >= 1 lanes at `p`.
template <int DTYPE>
inline void store_elements(void* p, vec a, int64_t n) {
    const __mmask16 kept = first_lanes(n);
    if constexpr (DTYPE == RLS_FLOAT32) _mm512_mask_storeu_ps(p, kept, a);
    else if constexpr (DTYPE == RLS_FLOAT16)
        _mm256_mask_storeu_epi16(p, kept, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    else _mm256_mask_storeu_epi16(p, kept, to_bfloat16(a));
}

// Transposes a square of lanes in place.
inline void transpose(vec (&m)[LANES]) {
    vec a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(m[i], m[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(m[i], m[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
        a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        m[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
        m[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
        m[i + 4] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0x88);
        m[i + 12] = _mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0xdd);
    }
}

// Lane i is the sum of m[i]'s lanes.
inline vec reduce_each(vec (&m)[LANES]) {
    transpose(m);
    for (int i = 1; i < LANES; ++i) m[0] = add(m[0], m[i]);
    return m[0];
}

}  // namespace rls::RLS_ISA
