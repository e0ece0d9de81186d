#include "runtime/kvm_verdict.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "runtime/context.h"

namespace arca::runtime {
namespace {

using base::UniqueFd;

constexpr char kFile[] = "@kvm";  // no container's id begins like that
constexpr char kWorks[] = "works ";
constexpr char kFails[] = "fails ";

std::string bootId() {
    const auto text = base::readFile("/proc/sys/kernel/random/boot_id", 64);
    return text ? std::string(base::trim(*text)) : std::string();
}

}  // namespace

// Of the machine and not of a state root: the default root's folder, whatever --root says.
std::string kvmVerdictPath() {
    return ownDefaultRoot().path + "/" + kFile;
}

std::optional<bool> readKvmVerdict(const std::string& path) {
    const auto text = base::readFile(path, 256);
    if (!text) return std::nullopt;
    const std::string boot = bootId();
    if (base::trim(*text) == kWorks + boot) return true;
    if (base::trim(*text) == kFails + boot) return false;
    return std::nullopt;
}

void writeKvmVerdict(const std::string& path, bool works) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || slash == 0) return;
    const std::string folder = path.substr(0, slash);
    auto written = base::makeDirs(folder, 0700);
    if (written) {
        const auto dir = base::openAt(AT_FDCWD, folder, O_PATH | O_DIRECTORY);
        written = dir ? base::replaceFile(dir->get(), path.substr(slash + 1),
                                          (works ? kWorks : kFails) + bootId() + "\n")
                      : base::Result<>(base::fail(dir.error()));
    }
    if (!written) base::log::debug("remember whether KVM works: " + written.error().message());
}

std::string chooseAccel(const std::string& setting, const std::string& verdict_path) {
    if (setting != "auto") return setting;
    if (!UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC)).valid()) return "tcg";
    const auto verdict = readKvmVerdict(verdict_path);
    if (!verdict) return "auto";
    return *verdict ? "kvm" : "tcg";
}

}  // namespace arca::runtime
