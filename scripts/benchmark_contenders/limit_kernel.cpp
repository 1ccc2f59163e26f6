// What one core can do: the reference workload written by hand, for this workload alone. See workload.py.
//
// A network is trained through all of its steps before the next. A step passes over the hidden units twice, once forward
// and once back; what a unit needs again is kept in a row of the batch. The functions are those of generated steps.
#include "limit_network.hpp"

namespace {

constexpr int BATCH = 256, POINTS = 4096;

struct Network {
  float parameters[SIZE], means[SIZE], squares[SIZE];
};

template <bool NOISY>
float step(Network &network, const float *table, uint32_t key, float sigma, float rate, int number) {
  alignas(64) static thread_local float draws[UNITS][BATCH], activity[UNITS][BATCH], roots[UNITS][BATCH];
  alignas(64) float points[FEATURES][BATCH], outputs[OUTPUTS][BATCH], gradient[SIZE];
  const float *into = network.parameters, *biases = into + UNITS * INPUTS, *readout = biases + UNITS;
  for (int b = 0; b < BATCH; b++) {
    const float *point = table + (hash(key + b) % POINTS) * FEATURES;
    for (int f = 0; f < FEATURES; f++) points[f][b] = point[f];
  }
  for (int o = 0; o < OUTPUTS; o++)
    for (int b = 0; b < BATCH; b++) outputs[o][b] = readout[OUTPUTS * UNITS + o];
  for (int u = 0; u < UNITS; u++) {
    if (NOISY) draw_row<BATCH>(hash(key ^ 0x5bd1e995u) + u * (BATCH / 2), draws[u]);
#pragma omp simd
    for (int b = 0; b < BATCH; b++) {
      float value = into[u * 2] * points[0][b] + into[u * 2 + 1] * points[1][b] + biases[u];
      value = value > 0 ? value : 0;
      if (NOISY) {
        roots[u][b] = __builtin_sqrtf(value);
        value += sigma * roots[u][b] * draws[u][b];
      }
      activity[u][b] = value;
      outputs[0][b] += readout[u] * value;
      outputs[1][b] += readout[UNITS + u] * value;
    }
  }
  float loss = 0;
  for (int o = 0; o < OUTPUTS; o++) {
    float sum = 0;
#pragma omp simd reduction(+ : loss, sum)
    for (int b = 0; b < BATCH; b++) {
      const float error = outputs[o][b] - points[INPUTS + o][b];
      loss += error * error;
      outputs[o][b] = error * (2.0f / (OUTPUTS * BATCH));
      sum += outputs[o][b];
    }
    gradient[SIZE - OUTPUTS + o] = sum;
  }
  for (int u = 0; u < UNITS; u++) {
    float first = 0, second = 0, bias = 0, left = 0, right = 0;
#pragma omp simd reduction(+ : first, second, bias, left, right)
    for (int b = 0; b < BATCH; b++) {
      left += outputs[0][b] * activity[u][b];
      right += outputs[1][b] * activity[u][b];
      float slope = readout[u] * outputs[0][b] + readout[UNITS + u] * outputs[1][b];
      const bool active = NOISY ? roots[u][b] > 0 : activity[u][b] > 0;
      if (NOISY) slope *= 1 + 0.5f * sigma * draws[u][b] / roots[u][b];
      slope = active ? slope : 0;
      first += slope * points[0][b];
      second += slope * points[1][b];
      bias += slope;
    }
    gradient[u * 2] = first;
    gradient[u * 2 + 1] = second;
    gradient[UNITS * INPUTS + u] = bias;
    gradient[UNITS * (INPUTS + 1) + u] = left;
    gradient[UNITS * (INPUTS + 2) + u] = right;
  }
  const float mean_share = 1 - std::pow(0.9f, (float)number), square_share = std::sqrt(1 - std::pow(0.999f, (float)number));
#pragma omp simd
  for (int i = 0; i < SIZE; i++) {
    network.means[i] += 0.1f * (gradient[i] - network.means[i]);
    network.squares[i] += 0.001f * (gradient[i] * gradient[i] - network.squares[i]);
    network.parameters[i] -=
        rate / mean_share * network.means[i] / (__builtin_sqrtf(network.squares[i]) / square_share + 1e-8f);
  }
  return loss / (OUTPUTS * BATCH);
}

}  // namespace

// Trains networks in place, with a table of points for each, and returns their mean loss in the last step.
extern "C" float train(Network *networks, int count, const float *tables, int steps, float sigma, float rate) {
  float loss = 0;
  for (int n = 0; n < count; n++)
    for (int number = 1; number <= steps; number++) {
      const float *table = tables + (size_t)n * POINTS * FEATURES;
      const uint32_t key = hash(n * 0x9e3779b9u + number);
      const float now = sigma > 0 ? step<true>(networks[n], table, key, sigma, rate, number)
                                  : step<false>(networks[n], table, key, sigma, rate, number);
      if (number == steps) loss += now / count;
    }
  return loss;
}
