#include "vmexec/exec_lookup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error_texts.h"
#include "base/strings.h"

namespace arca::vmexec {

using base::Code;
using base::fail;
using base::Result;

namespace {

// 0, or the errno that says why `path` cannot be executed.
int whyNotExecutable(const std::string& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return errno;
    if (S_ISDIR(st.st_mode)) return EISDIR;
    // After the change of user real and effective ids are the same. A mount with noexec says no
    // too.
    if (::access(path.c_str(), X_OK) != 0) return errno;
    return 0;
}

std::string prefixOf(const std::string& name) {
    return "exec: \"" + base::printable(name) + "\": ";
}

}  // namespace

std::string_view envValue(const std::vector<std::string>& env, std::string_view name) {
    std::string_view value;
    for (const std::string_view entry : env) {
        if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=')
            value = entry.substr(name.size() + 1);
    }
    return value;
}

Result<std::string> findProgram(const std::string& name, const std::vector<std::string>& env) {
    if (name.find('/') != std::string::npos) {
        const int why = whyNotExecutable(name);
        if (why == 0) return name;
        std::string reason = base::errnoText(why);
        // Engines of different ages look for one or the other of these words to tell 126 from 127.
        if (why == EISDIR) reason += ": " + base::errnoText(EACCES);
        if (why == EISDIR || why == EACCES)
            return fail(Code::kPermissionDenied, prefixOf(name) + reason, why);
        return fail(Code::kNotFound,
                    prefixOf(name) + "stat " + base::printable(name) + ": " + reason, why);
    }
    const std::string_view path = envValue(env, "PATH");
    if (!name.empty() && !path.empty()) {
        for (const std::string_view dir : base::split(path, ':')) {
            std::string candidate(dir.empty() ? "." : dir);
            candidate.append("/").append(name);
            if (whyNotExecutable(candidate) == 0) return candidate;
        }
    }
    return fail(Code::kNotFound, prefixOf(name) + base::texts::kExecutableNotFound, ENOENT);
}

}  // namespace arca::vmexec
