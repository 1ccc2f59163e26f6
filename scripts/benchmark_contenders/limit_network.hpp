// What the limit kernels share: the network of the reference workload, and draws. See workload.py.
#pragma once
#include <cmath>
#include "prelude.hpp"

namespace {

constexpr int INPUTS = 2, UNITS = 48, OUTPUTS = 2, FEATURES = INPUTS + OUTPUTS;
constexpr int SIZE = UNITS * (INPUTS + 1 + OUTPUTS) + OUTPUTS;  // of its parameters

INLINE uint32_t hash(uint32_t word) {
  word = (word ^ word >> 16) * 0x7feb352du;
  word = (word ^ word >> 15) * 0x846ca68bu;
  return word ^ word >> 16;
}

// A row of normal draws by the transform of Box and Muller: a pair of draws from each pair of hashes.
template <int NUMBER>
void draw_row(uint32_t key, float *__restrict row) {
#pragma omp simd
  for (int b = 0; b < NUMBER / 2; b++) {
    const uint32_t first = hash(key + b), second = hash(first + 0x9e3779b9u);
    const float radius = __builtin_sqrtf(-2 * logarithm(((float)(int32_t)(first >> 8) + 1) * 0x1p-24f));
    const float angle = (float)(int32_t)second * 1.46291808e-9f;
    row[b] = radius * cosine(angle);
    row[b + NUMBER / 2] = radius * sine(angle);
  }
}

}  // namespace
