// One file of a hooks.d folder: a hook, the containers that it is for, and its stages.
//
// Source: oci-hooks(5), schema 1.0.0. `service`, beside `hook`, is this project's own.
#pragma once

#include <regex.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::hooks {

// A POSIX extended regular expression, by bytes. Matches anywhere unless it is anchored.
class Pattern {
 public:
    // kInvalidArgument with the C library's reason, or because compiling it would take too much:
    // more than kMaxBytes, or repeat counts whose product is above kMaxRepeats.
    static base::Result<Pattern> compile(const std::string& text);
    static constexpr size_t kMaxBytes = 1024;
    static constexpr unsigned kMaxRepeats = 4096;

    [[nodiscard]] bool matches(const std::string& subject) const;

 private:
    struct Free {
        void operator()(regex_t* compiled) const;
    };
    explicit Pattern(std::unique_ptr<regex_t, Free> compiled) : compiled_(std::move(compiled)) {}
    std::unique_ptr<regex_t, Free> compiled_;
};

// All conditions that are given must hold; there is at least one.
struct When {
    std::optional<bool> always;  // false: never
    // Each pair must match an annotation, its name and its value.
    std::vector<std::pair<Pattern, Pattern>> annotations;
    std::vector<Pattern> commands;        // one of them must match args[0]
    std::optional<bool> has_bind_mounts;  // false: never, as the schema has it

    [[nodiscard]] bool holds(const spec::Spec& spec) const;
};

struct HookFile {
    std::string name;  // of the file; the caller's to set
    spec::Hook hook;
    When when;
    std::vector<std::string> stages;
};

// kInvalidArgument and one line in the form of spec::parseSpec()'s, "/when/commands/0: ...".
// Members that the schema does not have are refused, as are stages that are none of the
// specification's six; a service must have a single stage, before the program.
base::Result<HookFile> parseHookFile(std::string_view text);

}  // namespace arca::hooks
