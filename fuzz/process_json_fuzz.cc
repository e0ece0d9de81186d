// The process object of exec: what is accepted is written back and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "spec/parse.h"
#include "spec/write.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace arca::spec;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const Source source : {Source::kBundle, Source::kWire}) {
        const auto parsed = parseProcess(text, source);
        if (!parsed) continue;
        const std::string written = writeProcess(*parsed);
        const auto again = parseProcess(written, Source::kWire);
        if (!again || writeProcess(*again) != written) std::abort();
        if (parsed->cwd.empty() || parsed->cwd.front() != '/') std::abort();
    }
    return 0;
}
