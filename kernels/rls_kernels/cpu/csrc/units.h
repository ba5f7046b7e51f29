// What one 32-bit unit of a packed operand holds, and what multiplying by it means. The register tiles of matmul.h are
// written once over this: a unit of the left operand is broadcast, a vector of units of the right one multiplied.
#pragma once

#include "lanes.h"

namespace rls::RLS_ISA {

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

#ifdef __AVX512BF16__
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
