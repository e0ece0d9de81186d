#include "hooks/tap_forwarder/resolver.h"

#include <fcntl.h>

#include "base/files.h"
#include "base/log.h"
#include "base/result.h"

namespace arca::tap_forwarder {

namespace {

base::Result<> overwrite(const std::string& path, const std::string& text) {
    ARCA_TRY(const base::UniqueFd file,
             base::openAt(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY, 0644));
    return base::writeAll(file.get(), text);
}

}  // namespace

void writeResolvConf(const std::string& path, const std::vector<std::string>& nameservers) {
    std::string text;
    for (const std::string& address : nameservers) text += "nameserver " + address + "\n";
    const auto written = overwrite(path, text);
    if (!written) base::log::warning("write " + path + ": " + written.error().message());
}

}  // namespace arca::tap_forwarder
