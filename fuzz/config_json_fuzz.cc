// config.json and the plan: what is accepted is written back and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "spec/parse.h"
#include "spec/plan.h"
#include "spec/write.h"

namespace {

using namespace arca;

void check(bool claim) {
    if (!claim) std::abort();
}

// Messages go into log lines and terminals.
void checkMessage(const base::Error& error) {
    check(!error.message().empty());
    for (const char c : error.message()) {
        check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    }
}

void roundTrip(std::string_view text, spec::Source source) {
    spec::Warnings warnings;
    const auto parsed = spec::parseSpec(text, source, &warnings);
    if (!parsed) return checkMessage(parsed.error());
    const std::string written = spec::writeSpec(*parsed);
    const auto again = spec::parseSpec(written, spec::Source::kWire);
    check(again.has_value());
    check(spec::writeSpec(*again) == written);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    roundTrip(text, spec::Source::kBundle);
    roundTrip(text, spec::Source::kWire);
    const auto plan = spec::parsePlan(text);
    if (!plan) {
        checkMessage(plan.error());
        return 0;
    }
    const std::string written = spec::writePlan(*plan);
    const auto again = spec::parsePlan(written);
    check(again.has_value());
    check(spec::writePlan(*again) == written);
    return 0;
}
