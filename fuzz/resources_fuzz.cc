// The resources object of update: keys that become file names must be harmless.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "spec/parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto parsed = arca::spec::parseResources({reinterpret_cast<const char*>(data), size});
    if (!parsed) return 0;
    for (const auto& [name, value] : parsed->unified) {
        const bool plain = !name.empty() && name.front() != '.' &&
                           name.find('/') == std::string::npos &&
                           name.find('\0') == std::string::npos;
        if (!plain) std::abort();
    }
    for (const auto& [name, limit] : parsed->rdma) {
        if (name.find('\n') != std::string::npos) std::abort();
    }
    return 0;
}
