#include "hooks/hook_file.h"

#include <algorithm>
#include <cctype>

#include "base/strings.h"
#include "spec/value_rules.h"

namespace arca::hooks {

using base::Code;
using base::fail;
using base::Result;
using spec::JsonObject;
using spec::JsonType;
using spec::JsonValue;

namespace {

constexpr char kVersion[] = "1.0.0";

// The product of all repeat counts: what compiling can cost, for those that are nested multiply and
// those that are not only add up. Above `most` it is not counted on.
unsigned long repeats(std::string_view text, unsigned long most) {
    unsigned long product = 1;
    for (size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1)) {
        unsigned long largest = 1;
        unsigned long number = 0;
        for (size_t i = at + 1; i < text.size() && text[i] != '}'; ++i) {
            const bool digit = text[i] >= '0' && text[i] <= '9';
            number =
                digit ? std::min(number * 10 + static_cast<unsigned long>(text[i] - '0'), most + 1)
                      : 0;
            largest = std::max(largest, number);
        }
        product *= largest;
        if (product > most) return product;
    }
    return product;
}

std::optional<Pattern> readPattern(JsonValue value, const std::string& text) {
    auto pattern = Pattern::compile(text);
    if (pattern) return std::move(*pattern);
    value.fail(pattern.error().message());
    return std::nullopt;
}

void readAnnotations(JsonValue value, When& when) {
    if (!value.exists() || !value.expect(JsonType::kObject)) return;
    value.forEach([&](JsonValue member) {
        std::string text;
        spec::decode(member, text);
        if (member.reader()->failed()) return;
        auto name = readPattern(member, std::string(member.key()));
        auto wanted = readPattern(member, text);
        if (name && wanted) when.annotations.emplace_back(std::move(*name), std::move(*wanted));
    });
}

void readCommands(JsonValue value, When& when) {
    if (!value.exists() || !value.expect(JsonType::kArray)) return;
    value.forEach([&](JsonValue element) {
        std::string text;
        spec::decode(element, text);
        if (element.reader()->failed()) return;
        if (auto pattern = readPattern(element, text)) when.commands.push_back(std::move(*pattern));
    });
}

void readWhen(const JsonObject& file, When& when) {
    const JsonValue value = file.find("when");
    if (!value.exists()) return file.missing("when");
    static constexpr std::string_view kMembers[] = {"always", "annotations", "commands",
                                                    "hasBindMounts"};
    spec::refuseOthers(value, kMembers);
    const JsonObject object(value);
    object.get("always", when.always);
    object.get("hasBindMounts", when.has_bind_mounts);
    readAnnotations(object.find("annotations"), when);
    readCommands(object.find("commands"), when);
    if (!when.always && !when.has_bind_mounts && when.annotations.empty() &&
        when.commands.empty()) {
        file.fail("when", "needs a condition");
    }
}

void readStages(const JsonObject& file, HookFile& target) {
    std::vector<std::string> given;
    if (!file.require("stages", given)) return;
    if (given.empty()) return file.fail("stages", "must not be empty");
    spec::Hooks known;
    for (size_t i = 0; i < given.size(); ++i) {
        if (known.find(given[i]) == nullptr) {
            return file.find("stages").element(i).fail(spec::shown(given[i]) +
                                                       " is no stage of hooks");
        }
        const bool twice =
            std::find(target.stages.begin(), target.stages.end(), given[i]) != target.stages.end();
        if (!twice) target.stages.push_back(given[i]);
    }
}

void readHook(const JsonObject& file, HookFile& target) {
    static constexpr std::string_view kMembers[] = {"path", "args", "env", "timeout"};
    spec::refuseOthers(file.find("hook"), kMembers);
    file.require("hook", target.hook);
    if (!file.get("service", target.hook.service)) return;
    spec::nameService(target.hook, file);
    const bool one = target.stages.size() == 1;
    if (!one || (target.stages[0] != "prestart" && target.stages[0] != "createRuntime")) {
        file.fail("stages", "of a service must be either prestart or createRuntime");
    }
}

}  // namespace

void Pattern::Free::operator()(regex_t* compiled) const {
    ::regfree(compiled);
    delete compiled;
}

Result<Pattern> Pattern::compile(const std::string& text) {
    if (text.size() > kMaxBytes) {
        return fail(Code::kInvalidArgument,
                    "the regular expression has more than " + std::to_string(kMaxBytes) + " bytes");
    }
    if (text.find('\0') != std::string::npos) {
        return fail(Code::kInvalidArgument, "the regular expression has a NUL byte in it");
    }
    if (repeats(text, kMaxRepeats) > kMaxRepeats) {
        return fail(Code::kInvalidArgument, "the regular expression repeats too much");
    }
    auto compiled = std::make_unique<regex_t>();
    const int why = ::regcomp(compiled.get(), text.c_str(), REG_EXTENDED | REG_NOSUB);
    if (why != 0) {
        char reason[128];
        (void)::regerror(why, compiled.get(), reason, sizeof reason);
        return fail(Code::kInvalidArgument, "not a regular expression: " + std::string(reason));
    }
    return Pattern(std::unique_ptr<regex_t, Free>(compiled.release()));
}

bool Pattern::matches(const std::string& subject) const {
    return ::regexec(compiled_.get(), subject.c_str(), 0, nullptr, 0) == 0;
}

bool When::holds(const spec::Spec& spec) const {
    if (always && !*always) return false;
    if (has_bind_mounts &&
        (!*has_bind_mounts ||
         std::none_of(spec.mounts.begin(), spec.mounts.end(),
                      [](const spec::Mount& mount) { return mount.isBind(); }))) {
        return false;
    }
    for (const auto& wanted : annotations) {
        const bool found =
            std::any_of(spec.annotations.begin(), spec.annotations.end(), [&](const auto& one) {
                return wanted.first.matches(one.first) && wanted.second.matches(one.second);
            });
        if (!found) return false;
    }
    if (commands.empty()) return true;
    if (!spec.process || spec.process->args.empty()) return false;
    return std::any_of(commands.begin(), commands.end(), [&](const Pattern& pattern) {
        return pattern.matches(spec.process->args.front());
    });
}

Result<HookFile> parseHookFile(std::string_view text) {
    ARCA_TRY(spec::JsonReader reader, spec::JsonReader::parse(text, spec::JsonUtf8::kStrict));
    static constexpr std::string_view kMembers[] = {"version", "hook", "service", "when", "stages"};
    spec::refuseOthers(reader.root(), kMembers);
    const JsonObject file(reader.root());
    HookFile target;
    std::string version;
    if (file.require("version", version) && version != kVersion) {
        file.fail("version", "must be " + std::string(kVersion) + ", is " + spec::shown(version));
    }
    readStages(file, target);
    readHook(file, target);
    readWhen(file, target.when);
    if (reader.failed()) return fail(reader.takeFailure());
    return target;
}

}  // namespace arca::hooks
