// Files of hooks.d: what is accepted can be used, and its hook is written and read again as the
// same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "hooks/hook_file.h"
#include "hooks/hooks_dir.h"
#include "spec/parse.h"
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

spec::Spec container() {
    spec::Spec spec;
    spec.root.emplace().path = "/r";
    spec.process.emplace().args = {"/usr/bin/python3", "-c", "pass"};
    spec.process->cwd = "/";
    spec.annotations = {{"org.example.network", "forwarded"}, {"a", "b"}};
    spec.mounts.push_back({"/data", "bind", "/d", {"rbind"}, {}, {}});
    return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    auto file = hooks::parseHookFile({reinterpret_cast<const char*>(data), size});
    if (!file) {
        checkMessage(file.error());
        return 0;
    }
    check(!file->stages.empty() && file->hook.path.front() == '/');
    check(!file->hook.service || file->stages.size() == 1);
    spec::Spec spec = container();
    const bool holds = file->when.holds(spec);
    std::vector<hooks::HookFile> files;
    files.push_back(std::move(*file));
    hooks::addMatchingHooks(files, spec);
    for (const std::string& stage : files.front().stages) {
        check(spec.hooks.find(stage)->size() == (holds ? 1U : 0U));
    }
    const std::string written = spec::writeSpec(spec);
    const auto again = spec::parseSpec(written, spec::Source::kWire);
    check(again.has_value());
    check(spec::writeSpec(*again) == written);
    return 0;
}
