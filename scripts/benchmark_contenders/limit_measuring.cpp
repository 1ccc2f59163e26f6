// What one core can do: the default measures of a network of the reference workload written by hand, for it alone.
//
// Points, and those of other ranges, are given. All passes over the points of one network follow one another, so that
// what they read stays in a processor's cache. Poisson counts are those of modulab, which are written by hand, too.
#include <algorithm>
#include <cstring>
#include <numeric>
#include "limit_network.hpp"
#include "poisson.cpp"

namespace {

constexpr int POINTS = 1024, REPEATS = 16, SHARE = POINTS / REPEATS, ROTATIONS = 64;
constexpr int LEVEL_COUNT = 5;
constexpr float LEVELS[LEVEL_COUNT] = {0.1f, 0.2f, 0.3f, 0.5f, 1.0f}, FRACTIONS[] = {0.05f, 0.1f, 0.2f, 0.4f};
constexpr float SPEAKS_ABOVE = 0.001f, SHARE_OF_INPUTS = 0.01f;

using Row = float[POINTS];

struct Network {
  const float *into, *biases, *readout, *shifts;
  explicit Network(const float *parameters)
      : into(parameters), biases(into + UNITS * INPUTS), readout(biases + UNITS), shifts(readout + OUTPUTS * UNITS) {}
};

// The mean squared errors of both modules.
struct Errors {
  float first, second;
  float mean() const { return (first + second) / 2; }
};

// Errors at some points, where `change` is applied to each unit's activity; `kept` gets the difference at each point.
template <int NUMBER, typename Change>
INLINE Errors errors_of(const Network &network, const float *points, Change change, float *kept = nullptr) {
  alignas(64) float outputs[OUTPUTS][NUMBER];
  for (int o = 0; o < OUTPUTS; o++)
    for (int i = 0; i < NUMBER; i++) outputs[o][i] = network.shifts[o];
  const float *left = points, *right = points + POINTS;
  for (int u = 0; u < UNITS; u++) {
    const float from_left = network.into[2 * u], from_right = network.into[2 * u + 1], bias = network.biases[u];
    const float to_left = network.readout[u], to_right = network.readout[UNITS + u];
#pragma omp simd
    for (int i = 0; i < NUMBER; i++) {
      float value = from_left * left[i] + from_right * right[i] + bias;
      value = change(u, i, value > 0 ? value : 0);
      outputs[0][i] += to_left * value;
      outputs[1][i] += to_right * value;
    }
  }
  float totals[OUTPUTS] = {};
  for (int o = 0; o < OUTPUTS; o++) {
    const float *targets = points + (INPUTS + o) * POINTS;
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < NUMBER; i++) {
      outputs[o][i] -= targets[i];
      total += outputs[o][i] * outputs[o][i];
    }
    totals[o] = total / NUMBER;
  }
  if (kept) memcpy(kept, outputs, sizeof outputs);
  return {totals[0], totals[1]};
}

template <int NUMBER, typename Change>
INLINE float error_of(const Network &network, const float *points, Change change) {
  return errors_of<NUMBER>(network, points, change).mean();
}

INLINE float unchanged(int, int, float activity) { return activity; }

// The chance-corrected share of two modules' matrix that lies on its diagonal.
float diagonal(const float matrix[4]) {
  const float within = matrix[0] + matrix[3];
  return 2 * within / (within + matrix[1] + matrix[2]) - 1;
}

float selectivity(float best, float total) { return 2 * best / total - 1; }

// Structural and functional modularity, those of units, and structural modularity of rotated axes.
void modularity(const Network &network, const Row *activity, const float (*errors)[POINTS], float *&found) {
  alignas(64) float slopes[4][POINTS] = {};
  float gates[UNITS], paths[4] = {}, jacobian[4] = {}, special = 0, strength = 0, selected = 0, risen = 0;
  for (int u = 0; u < UNITS; u++) {
    float reads[] = {network.into[2 * u], network.into[2 * u + 1]};
    float writes[] = {network.readout[u], network.readout[UNITS + u]};
    float open = 0, square = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : open, square, first, second)
    for (int i = 0; i < POINTS; i++) {
      const float value = activity[u][i], gate = value > 0 ? 1.0f : 0.0f;
      open += gate;
      for (int o = 0; o < 2; o++)
        for (int k = 0; k < 2; k++) slopes[2 * o + k][i] += writes[o] * reads[k] * gate;
      square += value * value;
      first += errors[0][i] * value;
      second += errors[1][i] * value;
    }
    gates[u] = open / POINTS;
    // Without the unit, an error e becomes e - w a.
    const float rises[] = {
        std::fmax(0.0f, (writes[0] * square - 2 * first) * writes[0]),
        std::fmax(0.0f, (writes[1] * square - 2 * second) * writes[1]),
    };
    selected += std::fmax(rises[0], rises[1]);
    risen += rises[0] + rises[1];
    for (int o = 0; o < 2; o++)
      for (int k = 0; k < 2; k++) paths[2 * o + k] += std::fabs(writes[o] * reads[k]) * gates[u];
    const float all = (std::fabs(reads[0]) + std::fabs(reads[1])) * (std::fabs(writes[0]) + std::fabs(writes[1]));
    const float own[] = {std::fabs(reads[0] * writes[0]), std::fabs(reads[1] * writes[1])};
    const float both = own[0] + own[1];
    if (both > 0) special += all * gates[u] * std::fmax(own[0], own[1]) / both;
    strength += all * gates[u];
  }
  for (int k = 0; k < 4; k++) {
#pragma omp simd
    for (int i = 0; i < POINTS; i++) jacobian[k] += std::fabs(slopes[k][i]);
  }
  float null = 0;
  for (int r = 0; r < ROTATIONS; r++) {
    const float angle = (float)M_PI / 2 * (r + 0.5f) / ROTATIONS, c = std::cos(angle), s = std::sin(angle);
    float within = 0, all = 0;
#pragma omp simd reduction(+ : within, all)
    for (int u = 0; u < UNITS; u++) {
      const float a = network.into[2 * u], b = network.into[2 * u + 1];
      const float p = network.readout[u], q = network.readout[UNITS + u];
      const float reads[] = {std::fabs(c * a - s * b), std::fabs(s * a + c * b)};
      const float writes[] = {std::fabs(c * p - s * q), std::fabs(s * p + c * q)};
      within += gates[u] * (reads[0] * writes[0] + reads[1] * writes[1]);
      all += gates[u] * (reads[0] + reads[1]) * (writes[0] + writes[1]);
    }
    null += 2 * within / all - 1;
  }
  *found++ = diagonal(paths);
  *found++ = null / ROTATIONS;
  *found++ = diagonal(jacobian);
  *found++ = selectivity(special, strength);
  *found++ = selectivity(selected, risen);
}

// Mean activity, and the number of active units.
void activities(const Row *activity, float *&found) {
  float mean = 0;
  for (int u = 0; u < UNITS; u++) {
#pragma omp simd reduction(+ : mean)
    for (int i = 0; i < POINTS; i++) mean += activity[u][i];
  }
  mean /= UNITS * POINTS;
  float active = 0;
  for (int u = 0; u < UNITS; u++) {
    float speaks = 0;
#pragma omp simd reduction(+ : speaks)
    for (int i = 0; i < POINTS; i++) speaks += activity[u][i] > SPEAKS_ABOVE * mean ? 1.0f : 0.0f;
    active += speaks >= SHARE_OF_INPUTS * POINTS;
  }
  *found++ = mean;
  *found++ = active;
}

// Errors under Gaussian noise, under Poisson noise and that of equal energy in turn, multiplicative noise and counts.
void under_noise(const Network &network, const float *points, const Row *activity, uint32_t key, const CountTable &table,
                 float *&found) {
  alignas(64) static thread_local float draws[UNITS][POINTS], counted[LEVEL_COUNT][UNITS][POINTS];
  static thread_local int64_t doubtful[LEVEL_COUNT * UNITS * POINTS];
  double windows[LEVEL_COUNT];
  for (int l = 0; l < LEVEL_COUNT; l++) windows[l] = 1 / ((double)LEVELS[l] * LEVELS[l]);
  const float gain = std::sqrt(found[-2]);  // the root of mean activity
  for (int kind = 0; kind < 4; kind++) {
    for (int u = 0; u < UNITS; u++) draw_row<POINTS>(hash(key + kind) + u * (POINTS / 2), draws[u]);
    if (kind == 3)
      count_rates(1, UNITS * POINTS, activity[0], draws[0], 1, windows, LEVEL_COUNT, table.counts, table.rows, table.columns,
                  table.cells, table.largest_score, counted[0][0], doubtful);
    for (int l = 0; l < LEVEL_COUNT; l++) {
      const float level = LEVELS[l];
      const auto poisson = [&](float scale) {
        const auto change = [&](int u, int i, float a) { return a + scale * __builtin_sqrtf(a) * draws[u][i]; };
        return error_of<POINTS>(network, points, change);
      };
      if (kind == 0)
        *found++ = error_of<POINTS>(network, points, [&](int u, int i, float a) { return a + level * draws[u][i]; });
      if (kind == 1) {
        *found++ = poisson(level);
        *found++ = poisson(level * gain);
      }
      if (kind == 2)
        *found++ =
            error_of<POINTS>(network, points, [&](int u, int i, float a) { return a + level * a * draws[u][i]; });
      if (kind == 3)
        *found++ = error_of<POINTS>(network, points, [&](int u, int i, float) { return counted[l][u][i]; });
    }
  }
}

// Errors under noise on weights and on inputs in turn, and without some units.
void under_changes(const Network &network, const float *parameters, const float *points, uint32_t key, float *&found) {
  alignas(64) float draws[REPEATS][256], moved[FEATURES][POINTS], changed[256], shifts[INPUTS][POINTS];
  bool lost[REPEATS][UNITS];
  int order[UNITS];
  for (int r = 0; r < REPEATS; r++) {
    draw_row<256>(hash(key + 17) + r * 128, draws[r]);
    for (int u = 0; u < UNITS; u++) draws[r][UNITS * INPUTS + u] = 0;
    for (int o = 0; o < OUTPUTS; o++) draws[r][SIZE - OUTPUTS + o] = 0;
  }
  for (int k = 0; k < INPUTS; k++) draw_row<POINTS>(hash(key + 18) + k * (POINTS / 2), shifts[k]);
  memcpy(moved, points, sizeof moved);
  for (const float level : LEVELS) {
    float error = 0;
    for (int r = 0; r < REPEATS; r++) {
      for (int p = 0; p < SIZE; p++) changed[p] = parameters[p] * (1 + level * draws[r][p]);
      error += error_of<SHARE>(Network(changed), points + r * SHARE, unchanged);
    }
    *found++ = error / REPEATS;
    for (int k = 0; k < INPUTS; k++)
      for (int i = 0; i < POINTS; i++) moved[k][i] = points[k * POINTS + i] + level * shifts[k][i];
    *found++ = error_of<POINTS>(network, moved[0], unchanged);
  }
  for (const float fraction : FRACTIONS) {
    float error = 0;
    for (int r = 0; r < REPEATS; r++) {
      std::iota(order, order + UNITS, 0);
      const auto drawn = [&](int u) { return hash(key + r * UNITS + u); };
      std::sort(order, order + UNITS, [&](int a, int b) { return drawn(a) < drawn(b); });
      const int number = std::max(1, (int)std::nearbyint(fraction * UNITS));
      for (int u = 0; u < UNITS; u++) lost[r][order[u]] = u < number;
      error += error_of<SHARE>(network, points + r * SHARE, [&](int u, int, float a) { return lost[r][u] ? 0.0f : a; });
    }
    *found++ = error / REPEATS;
  }
}

}  // namespace

// Measures networks at points of their own, (member, feature, point), and of other ranges, (member, range, feature,
// point). Each has `values` results: errors at the points and beyond, modularity, activity, and errors under noise and changes.
extern "C" void measure(const float *parameters, int count, const float *points, const float *beyond, int ranges,
                        const int8_t *counts, int32_t rows, int32_t columns, float *results, int values) {
  alignas(64) static thread_local float activity[UNITS][POINTS], errors[OUTPUTS][POINTS];
  for (int n = 0; n < count; n++) {
    const float *own = parameters + (size_t)n * SIZE, *at = points + (size_t)n * FEATURES * POINTS;
    const Network network(own);
    float *found = results + (size_t)n * values;
    const uint32_t key = hash(n * 0x9e3779b9u);
    const auto keep = [&](int u, int i, float a) { return activity[u][i] = a; };
    *found++ = errors_of<POINTS>(network, at, keep, errors[0]).mean();
    for (int r = 0; r < ranges; r++) {
      const float *stretched = beyond + ((size_t)n * ranges + r) * FEATURES * POINTS;
      const Errors own_errors = errors_of<POINTS>(network, stretched, unchanged);
      *found++ = own_errors.first;
      *found++ = own_errors.second;
    }
    modularity(network, activity, errors, found);
    activities(activity, found);
    under_noise(network, at, activity, key, {counts, rows, columns, 64, 6}, found);
    under_changes(network, own, at, key, found);
  }
}
