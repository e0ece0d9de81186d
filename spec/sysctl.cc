#include "spec/sysctl.h"

#include "base/strings.h"

namespace arca::spec {

std::optional<std::string> sysctlPath(std::string_view key) {
    std::string path(key);
    const size_t first = path.find_first_of("./");
    if (first != std::string::npos && path[first] == '.') {
        for (char& c : path) {
            if (c == '.') {
                c = '/';
            } else if (c == '/') {
                c = '.';
            }
        }
    }
    for (const std::string_view part : base::split(path, '/')) {
        if (part.empty() || part == "." || part == "..") return std::nullopt;
    }
    return path;
}

}  // namespace arca::spec
