// Comparing numbers in tests: by RMS error, by bits, and for being finite. NaN never passes.
//
// The rule of RMS error: RMS(found - expected) <= tolerance * max(RMS(expected), floor). The floor is for gradients
// that are zero in exact arithmetic; it is 1e-3 times the RMS of all gradients together (GradientFloor), else 0.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace longspan::test {

double Rms(const std::vector<double>& values);

double GradientFloor(const std::vector<const std::vector<double>*>& gradients);

// Equal infinities at one place are equal; they count in neither RMS.
::testing::AssertionResult RmsClose(const std::string& name, const std::vector<double>& found,
                                    const std::vector<double>& expected, double tolerance, double floor = 0);

// Same bits everywhere, NaN included. The message names the first place that differs.
::testing::AssertionResult BitEqual(const std::string& name, const std::vector<double>& found,
                                    const std::vector<double>& expected);
::testing::AssertionResult BitEqual(const std::string& name, const std::vector<int32_t>& found,
                                    const std::vector<int32_t>& expected);

::testing::AssertionResult AllFinite(const std::string& name, const std::vector<double>& values);

}  // namespace longspan::test
