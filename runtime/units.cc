#include "runtime/units.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "base/strings.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

// Takes a number with an optional fraction off the front of `text`; nullopt when there is none.
std::optional<double> takeDecimal(std::string_view& text) {
    size_t digits = 0;
    size_t end = 0;
    bool point = false;
    for (; end < text.size(); ++end) {
        const char c = text[end];
        if (c == '.' && !point) {
            point = true;
        } else if (c >= '0' && c <= '9') {
            ++digits;
        } else {
            break;
        }
    }
    if (digits == 0) return std::nullopt;
    // Digits and at most one point, so that strtod(3) takes all of it; from_chars for doubles would
    // add 100 kB to the program.
    const double value = std::strtod(std::string(text.substr(0, end)).c_str(), nullptr);
    text.remove_prefix(end);
    return value;
}

std::optional<double> byteFactor(std::string_view suffix) {
    std::string unit = base::toLower(suffix);
    if (unit.empty() || unit == "b") return 1;
    if (unit.size() > 1 && unit.back() == 'b') unit.pop_back();
    if (unit.size() > 1 && unit.back() == 'i') unit.pop_back();
    constexpr std::string_view kUnits = "kmgtp";
    const size_t power = kUnits.find(unit);
    if (unit.size() != 1 || power == std::string_view::npos) return std::nullopt;
    return std::pow(1024.0, static_cast<double>(power + 1));
}

}  // namespace

Result<int64_t> parseBytes(std::string_view text) {
    const auto invalid = [&] {
        return fail(Code::kInvalidArgument, "invalid size: '" + base::printable(text) + "'");
    };
    if (text == "-1") return int64_t{-1};
    // Plain numbers stay exact; a double has only 53 bits.
    if (const auto whole = base::parseNumber<int64_t>(text); whole && *whole >= 0) return *whole;
    std::string_view rest = text;
    const auto number = takeDecimal(rest);
    if (!number) return invalid();
    const auto factor = byteFactor(base::trim(rest));
    if (!factor) return invalid();
    const double bytes = *number * *factor;
    if (bytes >= static_cast<double>(std::numeric_limits<int64_t>::max())) return invalid();
    return static_cast<int64_t>(bytes);
}

Result<std::chrono::nanoseconds> parseDuration(std::string_view text) {
    const auto invalid = [&] {
        return fail(Code::kInvalidArgument, "invalid duration \"" + base::printable(text) + "\"");
    };
    struct Unit {
        std::string_view name;
        double ns;
    };
    constexpr Unit kUnits[] = {{"ns", 1},   {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
                               {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},        {"h", 3600e9}};
    std::string_view rest = text;
    const bool negative = !rest.empty() && rest.front() == '-';
    if (!rest.empty() && (rest.front() == '-' || rest.front() == '+')) rest.remove_prefix(1);
    if (rest == "0") return std::chrono::nanoseconds(0);
    if (rest.empty()) return invalid();
    double total = 0;
    while (!rest.empty()) {
        const auto number = takeDecimal(rest);
        if (!number) return invalid();
        const size_t end = rest.find_first_of(".0123456789");
        const std::string_view name = rest.substr(0, end);
        const Unit* found = nullptr;
        for (const Unit& unit : kUnits) {
            if (unit.name == name) found = &unit;
        }
        if (found == nullptr) return invalid();
        total += *number * found->ns;
        rest.remove_prefix(name.size());
    }
    if (total >= static_cast<double>(std::numeric_limits<int64_t>::max())) return invalid();
    return std::chrono::nanoseconds(static_cast<int64_t>(negative ? -total : total));
}

Result<UserForm> parseUser(std::string_view text) {
    const auto parts = base::split(text, ':');
    UserForm user;
    const auto uid = base::parseNumber<uid_t>(parts[0]);
    std::optional<gid_t> gid;
    if (parts.size() == 2) gid = base::parseNumber<gid_t>(parts[1]);
    // 2^32-1 is "no id" to the kernel.
    constexpr uid_t kNone = std::numeric_limits<uid_t>::max();
    const bool good =
        parts.size() <= 2 && uid && *uid != kNone && (parts.size() == 1 || (gid && *gid != kNone));
    if (!good) {
        return fail(Code::kInvalidArgument, "invalid user \"" + base::printable(text) +
                                                "\": not UID or UID:GID in numbers");
    }
    user.uid = *uid;
    user.gid = gid;
    return user;
}

}  // namespace arca::runtime
