#include "runtime/exec_process.h"

#include <algorithm>

#include "base/error_texts.h"
#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "runtime/units.h"
#include "spec/parse.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;
namespace texts = base::texts;

Result<> applyUser(const Arguments& arguments, spec::Process& process, bool home_given) {
    const uid_t own_uid = process.user.uid;
    if (arguments.given("user")) {
        ARCA_TRY(const UserForm user, parseUser(arguments.text("user")));
        process.user.uid = user.uid;
        if (user.gid) process.user.gid = *user.gid;
    }
    if (process.user.uid != own_uid && !home_given) {
        std::erase_if(process.env,
                      [](const std::string& entry) { return entry.rfind("HOME=", 0) == 0; });
    }
    for (const std::string& text : arguments.list("additional-gids")) {
        const auto gid = base::parseNumber<gid_t>(text);
        if (!gid) {
            return fail(Code::kInvalidArgument,
                        "invalid group \"" + base::printable(text) + "\": not a number");
        }
        process.user.additionalGids.push_back(*gid);
    }
    return {};
}

Result<> applyEnvironment(const Arguments& arguments, spec::Process& process) {
    for (const std::string& entry : arguments.list("env")) {
        const size_t equals = entry.find('=');
        if (equals == std::string::npos || equals == 0) {
            return fail(Code::kInvalidArgument, "invalid environment variable \"" +
                                                    base::printable(entry) + "\": not NAME=VALUE");
        }
        const std::string_view name_and_equals(entry.data(), equals + 1);
        std::erase_if(process.env, [&](const std::string& old) {
            return std::string_view(old).substr(0, equals + 1) == name_and_equals;
        });
        process.env.push_back(entry);
    }
    return {};
}

void addOnce(std::vector<std::string>& list, const std::string& name) {
    if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
}

void applyCapabilities(const Arguments& arguments, spec::Process& process) {
    // Without an object the process keeps every capability there is: nothing can be added.
    if (!process.capabilities) return;
    spec::Capabilities& sets = *process.capabilities;
    const bool inheritable = !sets.inheritable.empty();
    for (const std::string& text : arguments.list("cap")) {
        std::string name = base::toUpper(text);
        if (name.rfind("CAP_", 0) != 0) name.insert(0, "CAP_");
        addOnce(sets.bounding, name);
        addOnce(sets.effective, name);
        addOnce(sets.permitted, name);
        if (!inheritable) continue;
        // Only what is inheritable can be ambient.
        addOnce(sets.inheritable, name);
        addOnce(sets.ambient, name);
    }
}

}  // namespace

Result<spec::Process> processFromFile(const std::string& path) {
    ARCA_TRY(const std::string text, base::readFile(path, spec::kMaxConfigBytes));
    spec::Warnings warnings;
    auto process = spec::parseProcess(text, spec::Source::kBundle, &warnings);
    if (!process) return fail(std::move(process).error().withContext(base::printable(path)));
    for (const std::string& warning : warnings) {
        base::log::warning(base::printable(path) + ": " + warning);
    }
    return process;
}

Result<spec::Process> processFromFlags(const Arguments& arguments, spec::Process own,
                                       bool home_given) {
    const std::vector<std::string>& words = arguments.positional();
    spec::Process process = std::move(own);
    process.args.assign(words.begin() + 1, words.end());
    if (process.args.empty()) return fail(Code::kInvalidArgument, texts::kExecArgsEmpty);
    process.terminal = arguments.isSet("tty");
    process.consoleSize.reset();
    if (arguments.given("cwd")) process.cwd = arguments.text("cwd");
    if (process.cwd.empty() || process.cwd.front() != '/') {
        return fail(Code::kInvalidArgument, "cwd must be an absolute path");
    }
    ARCA_CHECK(applyUser(arguments, process, home_given));
    ARCA_CHECK(applyEnvironment(arguments, process));
    applyCapabilities(arguments, process);
    if (arguments.given("process-label")) process.selinuxLabel = arguments.text("process-label");
    if (arguments.given("apparmor")) process.apparmorProfile = arguments.text("apparmor");
    if (arguments.isSet("no-new-privs")) process.noNewPrivileges = true;
    return process;
}

}  // namespace arca::runtime
