// Rates that Poisson counts give, as modulab/metrics/poisson.py and robustness.py compute them, to the same bits.
#include <cmath>
#include <cstdint>
#include <cstring>

static constexpr float SEARCH_BELOW = 8;
static constexpr int LARGEST_SEARCHED = 100;
// Above this rate, logarithms of factorials lose too many digits.
static constexpr double SUMMED_BELOW = 2000;
// Up to this relative difference of two probabilities, it is left open which of them is larger.
static constexpr double TOO_CLOSE = 1e-9;

// Phi(score).
static double probability_of(double score) { return 0.5 * std::erfc(-score * M_SQRT1_2); }

// The smallest n with P(N <= n) >= Phi(score), by summing probabilities upwards.
static double searched(double rate, double score) {
  double term = std::exp(-rate), missing = probability_of(score) - term;
  int count = 0;
  while (missing > 0 && count < LARGEST_SEARCHED - 1) {
    count++;
    term = term * rate / count;
    missing -= term;
  }
  return count;
}

// The smallest n >= count with P(N <= n) >= Phi(score), where P(N <= count - 1) is below that. -1 where too close to tell.
static double decided(double rate, double score, double count) {
  const double wanted = probability_of(score), inverse = 1 / rate;
  double term = std::exp(count * std::log(rate) - rate - std::lgamma(count + 1)), reached = term;
  // Downwards from P(N = count); what is left out is a share of about 1e-11.
  double below = term;
  for (double n = count; n > 0 && below > 1e-12 * reached; n--) {
    below *= n * inverse;
    reached += below;
  }
  while (std::fabs(reached - wanted) > TOO_CLOSE * wanted) {
    if (reached > wanted) return count;
    count++;
    term *= rate / count;
    reached += term;
  }
  return -1;
}

// By M. Giles's expansion and, where that is nearer to an integer than its error, by probabilities. -1 in doubt.
static double expanded(double rate, double score) {
  const double root = std::sqrt(rate), square = score * score;
  const double x = rate + root * score + (1.0 / 3 + square / 6) - score * (1.0 / 36 + square / 72) / root +
                   (-8.0 / 405 + square * (7.0 / 810 + square / 270)) / rate;
  const double error = 0.02 * (1 + std::fabs(score) * square * square) / (rate * root) + 1e-14 * rate;
  const double lowest = std::fmax(std::floor(x - error), 0), highest = std::fmax(std::floor(x + error), 0);
  if (lowest == highest) return lowest;
  return rate < SUMMED_BELOW ? decided(rate, score, lowest) : -1;
}

// Of rates of 8 and more, or -1 in doubt.
static inline float expanded_in_single(float rate, float score) {
  const float large = rate > SEARCH_BELOW ? rate : SEARCH_BELOW;
  const float root = std::sqrt(large), inverse = 1 / root, square = score * score;
  float x = ((square * (1.0f / 270) + 7.0f / 810) * square - 8.0f / 405) * inverse;
  x = (x - (square * (1.0f / 72) + 1.0f / 36) * score) * inverse;
  x = x + square * (1.0f / 6) + 1.0f / 3 + root * score + large;
  const float error =
      (square * square * std::fabs(score) + 1) * inverse * inverse * inverse * 0.02f + large * 2e-6f;
  const float lowest = std::floor(x - error), highest = std::floor(x + error);
  return lowest == highest ? lowest : -1.0f;
}

static inline float between(float value, float lowest, float highest) {
  value = value > lowest ? value : lowest;
  return value < highest ? value : highest;
}

static inline float rate_of(float activity, double window, double count) {
  const float sign = activity > 0 ? 1.0f : (activity < 0 ? -1.0f : activity * 0.0f);
  return sign * (float)(count / window);
}

// The one count possible in each cell of rates and scores, or -1.
struct CountTable {
  const int8_t *counts;
  int32_t rows, columns;
  float cells, largest_score;
};

static constexpr int PIECE = 1024;  // so that what is computed on the way stays in the first cache

// The units of a piece that are not silent, with their places in it: often half of all, and others count nothing.
struct Active {
  int number;
  float largest, values[PIECE], scores[PIECE];
  int32_t places[PIECE];
};

static void find_active(const float *activity, const float *scores, int size, Active &active) {
  int number = 0;
  for (int i = 0; i < size; i++) {
    active.values[number] = activity[i];
    active.scores[number] = scores[i];
    active.places[number] = i;
    number += !(activity[i] == 0);  // NaN is kept
  }
  float largest = 0;
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < number; i++) {
    const float magnitude = std::fabs(active.values[i]);
    largest = magnitude > largest ? magnitude : largest;
  }
  active.number = number;
  active.largest = largest;
}

// Writes sign(a) n / window of active units to their places. Returns how many are in doubt, and lists their places.
static int count_active(const Active &active, double window, const CountTable &table, float *counted,
                        int32_t *doubtful) {
  const float length = (float)window, last_row = (float)(table.rows - 1), last_column = (float)(table.columns - 1);
  const int number = active.number;
  int32_t cells[PIECE];
  int8_t tabulated[PIECE];
  float rates[PIECE], counts[PIECE], found[PIECE];
  uint8_t doubt[PIECE + 8];
#pragma omp simd
  for (int i = 0; i < number; i++) {
    rates[i] = std::fabs(active.values[i]) * length;
    // Comparisons with NaN are false, so that its place is the first.
    const float row = between(std::ceil(rates[i] * table.cells), 0, last_row);
    const float column = std::floor((active.scores[i] + table.largest_score) * table.cells);
    cells[i] = (int32_t)row * table.columns + (int32_t)between(column, 0, last_column);
  }
  for (int i = 0; i < number; i++) tabulated[i] = table.counts[cells[i]];
  for (int i = 0; i < number; i++) counts[i] = tabulated[i];
  if (active.largest * length >= SEARCH_BELOW) {
#pragma omp simd
    for (int i = 0; i < number; i++) {
      const float approximated = expanded_in_single(rates[i], active.scores[i]);
      counts[i] = rates[i] < SEARCH_BELOW ? counts[i] : approximated;
    }
  }
#pragma omp simd
  for (int i = 0; i < number; i++) {
    found[i] = rate_of(active.values[i], window, counts[i]);
    doubt[i] = rates[i] < INFINITY && counts[i] >= 0 ? 0 : 1;
  }
  for (int i = 0; i < number; i++) counted[active.places[i]] = found[i];
  // Few are in doubt, so eight are passed over at once.
  int left = 0;
  memset(doubt + number, 0, 8);
  for (int first = 0; first < number; first += 8) {
    uint64_t eight;
    memcpy(&eight, doubt + first, 8);
    for (; eight != 0; eight &= eight - 1) {
      const int i = first + __builtin_ctzll(eight) / 8;
      const float score = active.scores[i];
      const double count = rates[i] < SEARCH_BELOW ? searched(rates[i], score)
                           : rates[i] < INFINITY   ? expanded(rates[i], score)
                                                   : NAN;
      counted[active.places[i]] = rate_of(active.values[i], window, count);
      if (count < 0) doubtful[left++] = active.places[i];
    }
  }
  return left;
}

// Writes sign(a) n / window for counts n of mean |a| window: each row of activity for each of its own windows, by a row
// of scores that serves several in succession. Returns how many are left in doubt, and lists their places.
extern "C" int64_t count_rates(int64_t rows, int64_t number, const float *activity, const float *scores,
                               int64_t served, const double *windows, int64_t window_count, const int8_t *counts,
                               int32_t table_rows, int32_t table_columns, float cells, float largest_score,
                               float *counted, int64_t *doubtful) {
  const CountTable table = {counts, table_rows, table_columns, cells, largest_score};
  int64_t left = 0;
  Active active;
  int32_t in_piece[PIECE];
  for (int64_t row = 0; row < rows; row++)
    for (int64_t start = 0; start < number; start += PIECE) {
      const int size = (int)(number - start < PIECE ? number - start : PIECE);
      find_active(activity + row * number + start, scores + row / served * number + start, size, active);
      for (int64_t window = 0; window < window_count; window++) {
        const int64_t place = (row * window_count + window) * number + start;
        memset(counted + place, 0, size * sizeof(float));
        const int some = count_active(active, windows[row * window_count + window], table, counted + place, in_piece);
        for (int i = 0; i < some; i++) doubtful[left++] = place + in_piece[i];
      }
    }
  return left;
}
