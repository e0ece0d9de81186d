// config.json and process.json into the structs of spec.h, with every limit checked.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::spec {

// Largest document that is read, in bytes. A real one is some 50 KiB.
inline constexpr size_t kMaxConfigBytes = size_t{10} << 20U;

// Where the text comes from decides how strict its shape is; values are checked alike.
enum class Source {
    kBundle,  // a bundle's config.json: the specification's rules
    // The guest protocol's `configuration`: empty strings stand for absent (ociVersion, cwd,
    // rootfsPropagation ...), args may be empty, `pagesize` stands for `pageSize`, `username` is
    // read, bytes that are no UTF-8 are kept. What needs a namespace is not held against the list
    // of namespaces, which may be left out there.
    kWire,
};

// Things that the specification wants warned about, not refused.
using Warnings = std::vector<std::string>;

// Parses a whole configuration. Unknown properties are ignored; null is absent; of two properties
// of one name the last counts. Fails with kInvalidArgument and one line, in which the file's name
// is the caller's to add: "<JSON pointer>: <rule>", e.g. "/process/rlimits/1/type: RLIMIT_FOO is no
// resource limit", or "invalid JSON at byte N: reason". Reasons: broken JSON, more than
// kMaxConfigBytes, nesting deeper than 64, wrong type, out of range, negative where unsigned, a
// float where an integer belongs, duplicate or unknown namespace type, duplicate rlimit type,
// relative path where an absolute one is required, missing required property, NUL byte in a string,
// an environment entry without '=' or with an empty name, an ociVersion that is not SemVer or whose
// major is not 1, combinations that the specification forbids (hostname without a UTS namespace
// ...).
base::Result<Spec> parseSpec(std::string_view json, Source source, Warnings* warnings = nullptr);

// Parses an OCI `process` object on its own (exec's process file) by the same code.
base::Result<Process> parseProcess(std::string_view json, Source source,
                                   Warnings* warnings = nullptr);

// Parses a LinuxResources object on its own (`update --resources`).
base::Result<Resources> parseResources(std::string_view json);

}  // namespace arca::spec
