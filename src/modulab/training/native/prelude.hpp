// Functions that generated steps call. Each is free of branches, so that loops over it are vectorised, and gives NaN for
// NaN. Their errors are at most a few units in the last place.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t bits_of(float value) { return __builtin_bit_cast(int32_t, value); }
INLINE float float_of(int32_t bits) { return __builtin_bit_cast(float, bits); }

INLINE float absolute(float value) { return __builtin_fabsf(value); }
INLINE int32_t absolute(int32_t value) { return value < 0 ? -value : value; }
INLINE float sign(float value) { return __builtin_fabsf(value) > 0 ? __builtin_copysignf(1.0f, value) : value; }
INLINE float larger(float left, float right) { return right > left || right != right ? right : left; }
INLINE float smaller(float left, float right) { return right < left || right != right ? right : left; }
INLINE int32_t larger(int32_t left, int32_t right) { return right > left ? right : left; }
INLINE int32_t smaller(int32_t left, int32_t right) { return right < left ? right : left; }
INLINE int64_t larger(int64_t left, int64_t right) { return right > left ? right : left; }
INLINE int64_t smaller(int64_t left, int64_t right) { return right < left ? right : left; }

// The quotient in double precision is off by at most one, and processors have no vector division of integers.
INLINE int32_t remainder_of(int32_t value, int32_t divisor) {
  int32_t quotient = (int32_t)((double)value * (1.0 / (double)divisor));
  int32_t rest = value - quotient * divisor;
  rest = rest < 0 ? rest + divisor : rest;
  return rest >= divisor ? rest - divisor : rest;
}

// e^x = 2^n e^r with |r| <= log(2) / 2, log(2) in two parts (W. Cody and W. Waite, "Software Manual for the Elementary
// Functions", 1980). 2^n is multiplied in two steps, as n is up to 129 and down to -150.
INLINE float exponential(float value) {
  float bounded = value > 89.0f ? 89.0f : value;
  bounded = bounded < -104.0f ? -104.0f : bounded;
  float rounded = bounded * 1.44269504088896341f + 12582912.0f;
  int32_t power = bits_of(rounded) - 0x4b400000;
  rounded -= 12582912.0f;
  float rest = __builtin_fmaf(rounded, -0.693145751953125f, bounded);
  rest = __builtin_fmaf(rounded, -1.42860682030941723e-6f, rest);
  float sum = 1.0f / 5040;
  sum = __builtin_fmaf(sum, rest, 1.0f / 720);
  sum = __builtin_fmaf(sum, rest, 1.0f / 120);
  sum = __builtin_fmaf(sum, rest, 1.0f / 24);
  sum = __builtin_fmaf(sum, rest, 1.0f / 6);
  sum = __builtin_fmaf(sum, rest, 0.5f);
  sum = __builtin_fmaf(sum * rest, rest, rest) + 1.0f;
  int32_t half = power >> 1;
  return sum * float_of((half + 127) << 23) * float_of((power - half + 127) << 23);
}

// log(x) = n log(2) + log(1 + r), 1 + r between sqrt(1/2) and sqrt(2). The polynomial is that of least relative error,
// 6e-9, among those that begin with r - r^2 / 2.
INLINE float logarithm_times_two_to(int32_t exponent, float value) {
  int32_t bits = bits_of(value);
  int32_t power = (bits - 0x3f3504f3) >> 23;
  float rest = float_of(bits - (power << 23)) - 1.0f;
  float n = (float)(power + exponent);
  float sum = -7.6331198e-2f;
  sum = __builtin_fmaf(sum, rest, 1.2760946e-1f);
  sum = __builtin_fmaf(sum, rest, -1.3160384e-1f);
  sum = __builtin_fmaf(sum, rest, 1.4201827e-1f);
  sum = __builtin_fmaf(sum, rest, -1.6623342e-1f);
  sum = __builtin_fmaf(sum, rest, 2.0001228e-1f);
  sum = __builtin_fmaf(sum, rest, -2.5000823e-1f);
  sum = __builtin_fmaf(sum, rest, 3.3333331e-1f);
  sum = __builtin_fmaf(sum, rest, -0.5f);
  return __builtin_fmaf(n, 0.693147180559945f, __builtin_fmaf(sum * rest, rest, rest));
}
INLINE float logarithm_of_normal(float value) { return logarithm_times_two_to(0, value); }
INLINE float logarithm(float value) {
  bool tiny = value < 1.17549435e-38f;
  float result = logarithm_times_two_to(tiny ? -23 : 0, value * (tiny ? 8388608.0f : 1.0f));
  float limit = value == 0.0f ? -__builtin_inff() : (value < 0.0f ? __builtin_nanf("") : value);
  return value > 0.0f && value < __builtin_inff() ? result : limit;
}

// With u the rounded 1 + x, log(u) lacks what was lost in rounding, divided by u.
INLINE float logarithm_of_one_plus(float value) {
  float sum = 1.0f + value;
  float lost = value - (sum - 1.0f);
  float result = logarithm(sum) + lost / sum;
  return sum - sum == 0.0f && sum > 0.0f ? result : logarithm(sum);
}

INLINE float hyperbolic_tangent(float value) {
  float magnitude = __builtin_fabsf(value), square = value * value;
  // The continued fraction of tanh, which converges fast for small arguments (J. Lambert, 1768).
  float small = magnitude * (10395.0f + square * (1260.0f + square * 21.0f)) /
                (10395.0f + square * (4725.0f + square * (210.0f + square)));
  float large = 1.0f - 2.0f / (exponential(2.0f * magnitude) + 1.0f);
  return __builtin_copysignf(magnitude < 0.625f ? small : large, value);
}

// Sine and cosine of an angle of at most 2^13: it is taken back to [-pi/4, pi/4] with pi/2 in three parts.
#pragma omp declare reduction(amax : float : omp_out = larger(omp_out, omp_in)) initializer(omp_priv = -__builtin_inff())

struct Turned { float rest; int32_t quadrant; };
INLINE Turned turned(float angle) {
  float rounded = angle * 0.636619772367581343f + 12582912.0f;
  int32_t quadrant = bits_of(rounded);
  rounded -= 12582912.0f;
  float rest = __builtin_fmaf(rounded, -1.5703125f, angle);
  rest = __builtin_fmaf(rounded, -4.837512969970703125e-4f, rest);
  rest = __builtin_fmaf(rounded, -7.54978995489188216e-8f, rest);
  return {rest, quadrant};
}
INLINE float sine_near_zero(float x) {
  float square = x * x;
  float sum = -1.9515061e-4f;
  sum = __builtin_fmaf(sum, square, 8.3321584e-3f);
  sum = __builtin_fmaf(sum, square, -1.6666655e-1f);
  return __builtin_fmaf(sum * square, x, x);
}
INLINE float cosine_near_zero(float x) {
  float square = x * x;
  float sum = 2.4801587e-5f;
  sum = __builtin_fmaf(sum, square, -1.3888889e-3f);
  sum = __builtin_fmaf(sum, square, 4.1666667e-2f);
  return __builtin_fmaf(sum * square, square, __builtin_fmaf(square, -0.5f, 1.0f));
}
INLINE float negative_if(int32_t second_bit, float value) { return float_of(bits_of(value) ^ (second_bit << 30 & INT32_MIN)); }
INLINE float sine(float angle) {
  Turned t = turned(angle);
  float s = sine_near_zero(t.rest), c = cosine_near_zero(t.rest);
  return negative_if(t.quadrant, t.quadrant & 1 ? c : s);
}
INLINE float cosine(float angle) {
  Turned t = turned(angle);
  float s = sine_near_zero(t.rest), c = cosine_near_zero(t.rest);
  return negative_if(t.quadrant + 1, t.quadrant & 1 ? s : c);
}

// Matrix products with all sizes and strides known to the compiler. `product` has the columns of the right factor side
// by side, and keeps a tile of the output in registers; `product_of_rows` has the terms of each sum side by side, and
// adds them up in 16 parts on every processor. Vectors are those of the processor: GCC keeps wider ones in memory.
constexpr int LANES = 16;
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr int PARTS = LANES / WIDTH;
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

template <int ROWS, int VECTORS, int TERMS, int LEFT_ROW, int LEFT_TERM, int RIGHT_TERM, int OUT_ROW>
INLINE void tile(const float *left, const float *right, float *out) {
  Vector sums[ROWS][VECTORS] = {};
  for (int k = 0; k < TERMS; k++) {
    Vector columns[VECTORS];
    for (int v = 0; v < VECTORS; v++) columns[v] = *(const Vector *)(right + k * RIGHT_TERM + v * WIDTH);
    for (int i = 0; i < ROWS; i++)
      for (int v = 0; v < VECTORS; v++) sums[i][v] += left[i * LEFT_ROW + k * LEFT_TERM] * columns[v];
  }
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < VECTORS; v++) *(Vector *)(out + i * OUT_ROW + v * WIDTH) = sums[i][v];
}

template <int COLUMNS, int TERMS, int LEFT_TERM, int RIGHT_TERM>
INLINE void narrow_row(const float *left, const float *right, float *out) {
  float sums[COLUMNS] = {};
  for (int k = 0; k < TERMS; k++)
    for (int j = 0; j < COLUMNS; j++) sums[j] += left[k * LEFT_TERM] * right[k * RIGHT_TERM + j];
  for (int j = 0; j < COLUMNS; j++) out[j] = sums[j];
}

template <int ROWS_AT_ONCE, int ROWS, int COLUMNS, int TERMS, int LEFT_ROW, int LEFT_TERM, int RIGHT_TERM, int OUT_ROW>
INLINE void rows_of_product(const float *left, const float *right, float *out) {
  constexpr int WIDE = 2 * WIDTH;
  int j = 0;
  for (; j + WIDE <= COLUMNS; j += WIDE)
    for (int i = 0; i + ROWS_AT_ONCE <= ROWS; i += ROWS_AT_ONCE)
      tile<ROWS_AT_ONCE, 2, TERMS, LEFT_ROW, LEFT_TERM, RIGHT_TERM, OUT_ROW>(left + i * LEFT_ROW, right + j, out + i * OUT_ROW + j);
  if constexpr (COLUMNS % WIDE >= WIDTH) {
    for (int i = 0; i + ROWS_AT_ONCE <= ROWS; i += ROWS_AT_ONCE)
      tile<ROWS_AT_ONCE, 1, TERMS, LEFT_ROW, LEFT_TERM, RIGHT_TERM, OUT_ROW>(left + i * LEFT_ROW, right + j, out + i * OUT_ROW + j);
    j += WIDTH;
  }
  if constexpr (COLUMNS % WIDTH != 0)
    for (int i = 0; i < ROWS / ROWS_AT_ONCE * ROWS_AT_ONCE; i++)
      narrow_row<COLUMNS % WIDTH, TERMS, LEFT_TERM, RIGHT_TERM>(left + i * LEFT_ROW, right + j, out + i * OUT_ROW + j);
}

template <int ROWS, int COLUMNS, int TERMS, int LEFT_ROW, int LEFT_TERM, int RIGHT_TERM, int OUT_ROW>
static __attribute__((noinline)) void product(const float *left, const float *right, float *out) {
  constexpr int AT_ONCE = 6, WHOLE = ROWS / AT_ONCE * AT_ONCE;
  if constexpr (WHOLE > 0)
    rows_of_product<AT_ONCE, WHOLE, COLUMNS, TERMS, LEFT_ROW, LEFT_TERM, RIGHT_TERM, OUT_ROW>(left, right, out);
  if constexpr (ROWS > WHOLE)
    rows_of_product<ROWS - WHOLE, ROWS - WHOLE, COLUMNS, TERMS, LEFT_ROW, LEFT_TERM, RIGHT_TERM, OUT_ROW>(
        left + WHOLE * LEFT_ROW, right, out + WHOLE * OUT_ROW);
}

#ifdef __clang__
#define SHUFFLED(vector, ...) __builtin_shufflevector(vector, vector, __VA_ARGS__)
#else
typedef int32_t Places __attribute__((vector_size(WIDTH * sizeof(int32_t))));
#define SHUFFLED(vector, ...) __builtin_shuffle(vector, (Places){__VA_ARGS__})
#endif

// Each half of the lanes is added to the other, then each quarter, and so on: loops that add up elements one after
// another would wait for each sum.
INLINE float sum_of(Vector *parts) {
  for (int half = PARTS / 2; half > 0; half /= 2)
    for (int p = 0; p < half; p++) parts[p] += parts[p + half];
  Vector sums = parts[0];
#if defined(__AVX512F__)
  sums += SHUFFLED(sums, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  sums += SHUFFLED(sums, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  sums += SHUFFLED(sums, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  sums += SHUFFLED(sums, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif defined(__AVX__)
  sums += SHUFFLED(sums, 4, 5, 6, 7, 0, 1, 2, 3);
  sums += SHUFFLED(sums, 2, 3, 0, 1, 6, 7, 4, 5);
  sums += SHUFFLED(sums, 1, 0, 3, 2, 5, 4, 7, 6);
#else
  sums += SHUFFLED(sums, 2, 3, 0, 1);
  sums += SHUFFLED(sums, 1, 0, 3, 2);
#endif
  return sums[0];
}

template <int ROWS, int COLUMNS, int TERMS, int LEFT_ROW, int RIGHT_COLUMN, int OUT_ROW>
INLINE void tile_of_rows(const float *left, const float *right, float *out) {
  Vector sums[ROWS][COLUMNS][PARTS] = {};
  int k = 0;
  for (; k + LANES <= TERMS; k += LANES)
    for (int p = 0; p < PARTS; p++)
      for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
          sums[i][j][p] += *(const Vector *)(left + i * LEFT_ROW + k + p * WIDTH) *
                           *(const Vector *)(right + j * RIGHT_COLUMN + k + p * WIDTH);
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLUMNS; j++) {
      float sum = sum_of(sums[i][j]);
      for (int rest = k; rest < TERMS; rest++) sum += left[i * LEFT_ROW + rest] * right[j * RIGHT_COLUMN + rest];
      out[i * OUT_ROW + j] = sum;
    }
}

// So many sums as registers hold: a tile has ROWS_OF_TILE * COLUMNS_OF_TILE * PARTS of them.
constexpr int ROWS_OF_TILE = PARTS == 1 ? 4 : PARTS == 2 ? 2 : 1, COLUMNS_OF_TILE = PARTS == 1 ? 4 : PARTS == 2 ? 3 : 2;

template <int AT_ONCE, int ROWS, int COLUMNS, int TERMS, int LEFT_ROW, int RIGHT_COLUMN, int OUT_ROW>
INLINE void strip_of_rows(const float *left, const float *right, float *out) {
  for (int i = 0; i + AT_ONCE <= ROWS; i += AT_ONCE) {
    int j = 0;
    for (; j + COLUMNS_OF_TILE <= COLUMNS; j += COLUMNS_OF_TILE)
      tile_of_rows<AT_ONCE, COLUMNS_OF_TILE, TERMS, LEFT_ROW, RIGHT_COLUMN, OUT_ROW>(left + i * LEFT_ROW, right + j * RIGHT_COLUMN, out + i * OUT_ROW + j);
    for (; j < COLUMNS; j++)
      tile_of_rows<AT_ONCE, 1, TERMS, LEFT_ROW, RIGHT_COLUMN, OUT_ROW>(left + i * LEFT_ROW, right + j * RIGHT_COLUMN, out + i * OUT_ROW + j);
  }
}

template <int ROWS, int COLUMNS, int TERMS, int LEFT_ROW, int RIGHT_COLUMN, int OUT_ROW>
static __attribute__((noinline)) void product_of_rows(const float *left, const float *right, float *out) {
  constexpr int WHOLE = ROWS / ROWS_OF_TILE * ROWS_OF_TILE;
  if constexpr (WHOLE > 0) strip_of_rows<ROWS_OF_TILE, WHOLE, COLUMNS, TERMS, LEFT_ROW, RIGHT_COLUMN, OUT_ROW>(left, right, out);
  if constexpr (ROWS > WHOLE)
    strip_of_rows<1, ROWS - WHOLE, COLUMNS, TERMS, LEFT_ROW, RIGHT_COLUMN, OUT_ROW>(
        left + WHOLE * LEFT_ROW, right, out + WHOLE * OUT_ROW);
}
