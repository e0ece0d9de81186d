// Structs of spec.h back into JSON.
#pragma once

#include <string>

#include "spec/spec.h"

namespace arca::spec {

// The configuration as one compact line of JSON that parseSpec() reads back to an equal value.
// Absent optional properties are left out.
std::string writeSpec(const Spec& spec);
std::string writeProcess(const Process& process);

// The template of `arca-runtime spec`: runc's default configuration, tab-indented, with a final
// newline. `rootless`: with a user namespace that maps the caller's `uid`/`gid` to 0 and without a
// resources object. `cgroup2`: adds the cgroup namespace, as runc does on a unified host.
struct TemplateOptions {
    bool rootless = false;
    bool cgroup2 = false;
    uint32_t uid = 0;
    uint32_t gid = 0;
};
std::string templateConfig(const TemplateOptions& options);

}  // namespace arca::spec
