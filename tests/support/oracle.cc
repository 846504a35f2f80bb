#include "tests/support/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace longspan::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// phi(rows jd .. jd+l-1) of group g, one value per channel.
Array PhiOfBlock(const NsaCase& c, const Array& x, const PhiArrays& phi, int64_t width, int64_t j, int64_t g) {
  const int64_t l = c.nsa.block;
  Array y(width, 0.0);
  if (c.nsa.phi == Phi::kMean) {
    for (int64_t i = 0; i < l; ++i) {
      for (int64_t e = 0; e < width; ++e) y[e] += x[((j * c.nsa.stride + i) * c.groups + g) * width + e] / l;
    }
    return y;
  }
  const bool linear = c.nsa.phi == Phi::kLinear;
  Array flat(l * width);
  for (int64_t i = 0; i < l; ++i) {
    for (int64_t e = 0; e < width; ++e) {
      const double position = phi.position[((linear ? g * l : 0) + i) * width + e];
      flat[i * width + e] = x[((j * c.nsa.stride + i) * c.groups + g) * width + e] + position;
    }
  }
  if (linear) {
    for (int64_t r = 0; r < l * width; ++r) {
      for (int64_t e = 0; e < width; ++e) y[e] += flat[r] * phi.weight[(g * l * width + r) * width + e];
    }
    return y;
  }
  const int64_t hidden = c.PhiHidden(width);
  Array h = phi.bias1;
  for (int64_t r = 0; r < l * width; ++r) {
    for (int64_t m = 0; m < hidden; ++m) h[m] += flat[r] * phi.weight1[r * hidden + m];
  }
  y = phi.bias2;
  for (int64_t m = 0; m < hidden; ++m) {
    const double gelu = 0.5 * h[m] * (1 + std::erf(h[m] / std::sqrt(2.0)));
    for (int64_t e = 0; e < width; ++e) y[e] += gelu * phi.weight2[m * width + e];
  }
  return y;
}

// Llama's form: channel e pairs with e + K/2.
void Rotate(double* x, int64_t width, double position, double theta) {
  for (int64_t e = 0; e < width / 2; ++e) {
    const double angle = position * std::pow(theta, -2.0 * e / width);
    const double a = x[e], b = x[e + width / 2];
    x[e] = a * std::cos(angle) - b * std::sin(angle);
    x[e + width / 2] = a * std::sin(angle) + b * std::cos(angle);
  }
}

Array CompressAll(const NsaCase& c, bool key) {
  const int64_t width = key ? c.key_width : c.value_width, lead = c.nsa.lead();
  Array y((c.tokens / c.nsa.stride) * c.groups * width, 0.0);
  for (int64_t j = 0; j < c.compressed(); ++j) {
    for (int64_t g = 0; g < c.groups; ++g) {
      Array row = PhiOfBlock(c, key ? c.K(kCmp) : c.V(kCmp), key ? c.in.phi_k : c.in.phi_v, width, j, g);
      const int64_t start = j * c.nsa.stride;
      if (key && c.rotates()) {
        Rotate(row.data(), width, static_cast<double>(start - c.DocStart(start)), c.rope_theta);
      }
      std::copy(row.begin(), row.end(), y.begin() + ((j + lead) * c.groups + g) * width);
    }
  }
  return y;
}

double Score(const NsaCase& c, const Array& k, int64_t t, int64_t h, int64_t row) {
  const int64_t g = h / c.HeadsPerGroup();
  double sum = 0;
  for (int64_t e = 0; e < c.key_width; ++e) {
    sum += c.in.q[(t * c.heads + h) * c.key_width + e] * k[(row * c.groups + g) * c.key_width + e];
  }
  return sum * c.scale;
}

// Softmax over the given key rows. Fills o and lse of (t,h) and returns the probabilities, one a row.
Array Attend(const NsaCase& c, const Array& k, const Array& v, int64_t t, int64_t h, const std::vector<int64_t>& rows,
             Array& o, Array& lse) {
  const int64_t g = h / c.HeadsPerGroup();
  double* out = o.data() + (t * c.heads + h) * c.value_width;
  std::fill(out, out + c.value_width, 0.0);
  lse[t * c.heads + h] = -kInfinity;
  if (rows.empty()) return {};
  Array p;
  for (int64_t row : rows) p.push_back(Score(c, k, t, h, row));
  const double top = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - top);
  for (size_t i = 0; i < rows.size(); ++i) {
    p[i] /= sum;
    for (int64_t e = 0; e < c.value_width; ++e) out[e] += p[i] * v[(rows[i] * c.groups + g) * c.value_width + e];
  }
  lse[t * c.heads + h] = top + std::log(sum);
  return p;
}

}  // namespace

Array BlockScores(const Array& probability, const NsaConfig& nsa, int64_t blocks, Equation9 reading) {
  const int64_t count = static_cast<int64_t>(probability.size());
  const int64_t block_cells = nsa.select_block / nsa.stride, token_cells = nsa.block / nsa.stride;
  Array scores(blocks, 0.0);
  for (int64_t i = 0; i < blocks; ++i) {
    if (reading == Equation9::kLiteral) {
      for (int64_t m = 0; m < block_cells; ++m) {
        for (int64_t n = 0; n < token_cells; ++n) {
          const int64_t j = block_cells * i - m - n;
          if (j >= 0 && j < count) scores[i] += probability[j];
        }
      }
      continue;
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t begin = std::max(j * nsa.stride, i * nsa.select_block);
      const int64_t end = std::min(j * nsa.stride + nsa.block, (i + 1) * nsa.select_block);
      if (end > begin) scores[i] += probability[j] * static_cast<double>((end - begin) / nsa.stride);
    }
  }
  return scores;
}

std::vector<int32_t> ChooseBlocks(const Array& scores, int64_t first, int64_t own, const NsaConfig& nsa) {
  std::vector<int32_t> forced, free;
  for (int64_t i = first; i <= own; ++i) {
    const bool is_forced = i < first + nsa.init || i > own - nsa.local;
    (is_forced ? forced : free).push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(free.begin(), free.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  forced.insert(forced.end(), free.begin(), free.end());
  if (static_cast<int64_t>(forced.size()) > nsa.select) forced.resize(nsa.select);
  std::sort(forced.begin(), forced.end());
  forced.resize(nsa.select, -1);
  return forced;
}

NsaOutputs Oracle(const NsaCase& c, const std::vector<int32_t>* selected) {
  const int64_t S = c.tokens, n = c.nsa.select, b = c.nsa.select_block, lead = c.nsa.lead();
  NsaOutputs y;
  y.out.assign(S * c.heads * c.value_width, 0.0);
  y.o.fill(y.out);
  y.lse.fill(Array(S * c.heads));
  y.k_cmp = CompressAll(c, true);
  y.v_cmp = CompressAll(c, false);
  if (selected == nullptr) {
    y.scores.assign(S * c.groups * n, 0.0);
    y.selected.assign(S * c.groups * n, -1);
  } else {
    y.selected = *selected;
  }
  for (int64_t t = 0; t < S; ++t) {
    const int64_t doc = c.DocStart(t);
    std::vector<int64_t> summaries, window;
    for (int64_t j = 0; j < c.compressed(); ++j) {
      if (j * c.nsa.stride >= doc && j * c.nsa.stride + c.nsa.block - 1 <= t) summaries.push_back(j + lead);
    }
    for (int64_t u = 0; u <= t; ++u) {
      if (u >= doc && t - u < c.nsa.window) window.push_back(u);
    }
    for (int64_t g = 0; g < c.groups; ++g) {
      Array importance(c.compressed(), 0.0);  // equation 10: summed over the group's heads
      for (int64_t h = g * c.HeadsPerGroup(); h < (g + 1) * c.HeadsPerGroup(); ++h) {
        const Array p = Attend(c, y.k_cmp, y.v_cmp, t, h, summaries, y.o[kCmp], y.lse[kCmp]);
        for (size_t i = 0; i < p.size(); ++i) importance[summaries[i] - lead] += p[i];
      }
      int32_t* chosen = y.selected.data() + (t * c.groups + g) * n;
      if (selected == nullptr) {
        const Array scores = BlockScores(importance, c.nsa, t / b + 1, Equation9::kGeometric);
        const std::vector<int32_t> choice = ChooseBlocks(scores, doc / b, t / b, c.nsa);
        std::copy(choice.begin(), choice.end(), chosen);
        for (int64_t i = 0; i < n; ++i) y.scores[(t * c.groups + g) * n + i] = choice[i] < 0 ? 0 : scores[choice[i]];
      }
      std::vector<int64_t> picked;
      for (int64_t u = 0; u <= t; ++u) {
        if (std::find(chosen, chosen + n, static_cast<int32_t>(u / b)) != chosen + n) picked.push_back(u);
      }
      for (int64_t h = g * c.HeadsPerGroup(); h < (g + 1) * c.HeadsPerGroup(); ++h) {
        Attend(c, c.K(kSlc), c.V(kSlc), t, h, picked, y.o[kSlc], y.lse[kSlc]);
        Attend(c, c.K(kWin), c.V(kWin), t, h, window, y.o[kWin], y.lse[kWin]);
      }
    }
  }
  for (int64_t th = 0; th < S * c.heads; ++th) {
    for (int64_t e = 0; e < c.value_width; ++e) {
      for (int branch : {kCmp, kSlc, kWin}) {
        const int64_t at = th * c.value_width + e;
        y.out[at] += c.in.gates[th * 3 + branch] * y.o[branch][at];
      }
    }
  }
  return y;
}

}  // namespace longspan::test
