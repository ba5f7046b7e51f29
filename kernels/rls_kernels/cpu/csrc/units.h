// What one 32-bit unit of a packed operand holds, and what multiplying by it means. The register tiles of matmul.h are
// written once over this: a unit of the left operand is broadcast, a vector of units of the right one multiplied.
#pragma once

#include "lanes.h"

namespace rls::RLS_ISA {

// Two vectors of float32 from the 2 x LANES elements at `p`, of which `n` >= 1 are there and the others 0: bfloat16 as
// even and odd elements, other dtypes in order.
template <int DTYPE>
inline void load_two(vec (&two)[2], const void* p, int64_t n) {
    constexpr int SIZE = DTYPE == RLS_FLOAT32 ? 4 : 2;
    if constexpr (DTYPE == RLS_BFLOAT16) {
        alignas(64) unsigned char padded[2 * LANES * SIZE] = {};
        if (n < 2 * LANES) p = memcpy(padded, p, static_cast<size_t>(n) * SIZE);
        widen_bfloat16(p, two[0], two[1]);
    } else {
        two[0] = load_elements<DTYPE>(p, n);
        two[1] = n > LANES ? load_elements<DTYPE>(static_cast<const char*>(p) + LANES * SIZE, n - LANES) : broadcast(0);
    }
}

// One float32 a unit, whatever the tensors' dtype.
struct Float32Units {
    // Elements that one unit holds along the summed axis.
    static constexpr int DEPTH = 1;
    // Whether products come a block of rows at a time, through memory, rather than a register tile at a time.
    static constexpr bool BLOCKWISE = false;

    static vec multiply_add(vec a, vec b, vec sum) { return fma(a, b, sum); }

    // LANES units from `elements` >= 1 at `p`; what lies past them is 0.
    template <int DTYPE>
    static vec load_units(const void* p, int64_t elements) {
        return load_elements<DTYPE>(p, elements);
    }

    // One row of LANES units: nothing to join where a unit holds one element.
    template <int DTYPE>
    static vec join_rows(const void* row, const void*, int64_t elements) {
        return load_elements<DTYPE>(row, elements);
    }

    // Whether the pairs of vectors below hold even and odd elements.
    template <int DTYPE>
    static constexpr bool EVEN_AND_ODD = DTYPE == RLS_BFLOAT16;

    // 2 x LANES units of depth, or of one row, in an order of their own that is the same for all pairs.
    template <int DTYPE>
    static void load_unit_pair(vec (&pair)[2], const char* p, int64_t elements) {
        load_two<DTYPE>(pair, p, elements);
    }
    template <int DTYPE>
    static void join_row_pair(vec (&pair)[2], const char* row, const char*, int64_t elements) {
        load_two<DTYPE>(pair, row, elements);
    }

    // Stores VECTORS x LANES weights of one row as units, in order.
    template <int VECTORS>
    static void store_weights(unit* p, const vec (&weights)[VECTORS]) {
        for (int v = 0; v < VECTORS; ++v) store(p + v * LANES, weights[v]);
    }

    static void scale_weights(unit* p, int64_t elements, float factor) {
        float* weights = reinterpret_cast<float*>(p);
        for (int64_t i = 0; i < elements; ++i) weights[i] *= factor;
    }
};

#ifdef RLS_AVX512_BF16
// Two neighbouring bfloat16 a unit: one instruction multiplies both and adds them in float32.
struct BFloat16Units {
    static constexpr int DEPTH = 2;
    static constexpr bool BLOCKWISE = false;

    static vec multiply_add(vec a, vec b, vec sum) {
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
    }

    template <int DTYPE>
    static vec load_units(const void* p, int64_t elements) {
        static_assert(DTYPE == RLS_BFLOAT16);
        const __mmask32 kept = elements >= 2 * LANES ? ~0u : (1u << elements) - 1;
        return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(kept, p));
    }

    // Lane i joins element i of `row` and of `next`, which may be null for zeros.
    template <int DTYPE>
    static vec join_rows(const void* row, const void* next, int64_t elements) {
        static_assert(DTYPE == RLS_BFLOAT16);
        const __mmask16 kept = first_lanes(elements);
        const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(kept, row));
        const vec high = next ? load_elements<DTYPE>(next, elements) : broadcast(0);
        return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(high)));
    }

    // The pairs with zeros for their second elements.
    static vec first_of_pair(vec pairs) {
        return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(0xffff)));
    }

    template <int DTYPE>
    static constexpr bool EVEN_AND_ODD = false;

    template <int DTYPE>
    static void load_unit_pair(vec (&pair)[2], const char* p, int64_t elements) {
        constexpr int64_t ONE = LANES * DEPTH;
        pair[0] = load_units<DTYPE>(p, elements);
        pair[1] = elements > ONE ? load_units<DTYPE>(p + ONE * 2, elements - ONE) : broadcast(0);
    }
    template <int DTYPE>
    static void join_row_pair(vec (&pair)[2], const char* row, const char* next, int64_t elements) {
        pair[0] = join_rows<DTYPE>(row, next, elements);
        const char* after = next ? next + LANES * 2 : nullptr;
        pair[1] = elements > LANES ? join_rows<DTYPE>(row + LANES * 2, after, elements - LANES) : broadcast(0);
    }

    template <int VECTORS>
    static void store_weights(unit* p, const vec (&weights)[VECTORS]) {
        static_assert(VECTORS % 2 == 0);
        for (int v = 0; v < VECTORS; v += 2)
            _mm512_storeu_si512(p + v * LANES / 2,
                                reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(weights[v + 1], weights[v])));
    }

    static void scale_weights(unit* p, int64_t elements, float factor) {
        uint16_t* weights = reinterpret_cast<uint16_t*>(p);
        for (int64_t i = 0; i < elements; i += LANES)
            store_elements<RLS_BFLOAT16>(
                weights + i, mul(load_elements<RLS_BFLOAT16>(weights + i, LANES), broadcast(factor)), LANES);
    }
};
#endif

}  // namespace rls::RLS_ISA
