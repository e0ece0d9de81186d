#include "vminitd/kernel.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/strings.h"
#include "spec/sysctl.h"

namespace arca::vminitd {

using base::Code;
using base::fail;
using base::failErrno;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kLastSignal = 64;
constexpr size_t kMaxRegisterLine = 1920;  // fs/binfmt_misc.c, MAX_REGISTER_LENGTH

std::string shown(std::string_view text) {
    constexpr size_t kShown = 128;
    return "\"" + base::printable(text.substr(0, kShown)) + "\"";
}

}  // namespace

Result<> setSysctls(const std::map<std::string, std::string>& settings,
                    const std::string& proc_sys) {
    std::vector<std::pair<std::string, const std::string*>> files;
    for (const auto& [key, value] : settings) {
        const auto path = spec::sysctlPath(key);
        if (!path || path->find('\0') != std::string::npos) {
            return fail(Code::kInvalidArgument, "sysctl " + shown(key) + ": malformed key");
        }
        files.emplace_back(*path, &value);
    }
    ARCA_TRY(const UniqueFd root, base::openAt(AT_FDCWD, proc_sys, O_PATH | O_DIRECTORY));
    auto setting = settings.begin();
    for (const auto& [path, value] : files) {
        const std::string what = "failed to set sysctl " + (setting++)->first;
        auto file = base::openInRoot(root.get(), path, O_WRONLY);
        if (!file) return failErrno(what, file.error().sysErrno());
        // One write is one setting.
        const ssize_t n = ::write(file->get(), value->data(), value->size());
        if (n < 0) return failErrno(what);
        if (static_cast<size_t>(n) != value->size()) {
            return fail(Code::kSystem, what + ": only a part of the value was taken");
        }
    }
    return {};
}

Result<> setTime(int64_t sec, int32_t usec) {
    constexpr int32_t kUsPerSecond = 1'000'000;
    if (sec < 0 || usec < 0 || usec >= kUsPerSecond) {
        return fail(Code::kInvalidArgument, "not a time: " + std::to_string(sec) + " s and " +
                                                std::to_string(usec) + " us");
    }
    timeval time{};
    time.tv_sec = sec;
    time.tv_usec = usec;
    if (::settimeofday(&time, nullptr) != 0) return failErrno("failed to settimeofday");
    return {};
}

Result<std::string> emulatorLine(const Emulator& emulator) {
    const auto wrong = [](const char* part, const std::string& value) {
        return fail(Code::kInvalidArgument, std::string(part) + " " + shown(value));
    };
    const auto plain = [](const std::string& value) {
        return std::all_of(value.begin(), value.end(), [](char c) {
            return static_cast<unsigned char>(c) > ' ' && c != '\x7f' && c != ':';
        });
    };
    const std::string& name = emulator.name;
    if (name.empty() || !plain(name) || name.find('/') != std::string::npos || name == "." ||
        name == ".." || name == "register" || name == "status") {
        return wrong("name", name);
    }
    if (emulator.type != "M" && emulator.type != "E") return wrong("type", emulator.type);
    if (!emulator.offset.empty() && !base::parseNumber<uint16_t>(emulator.offset)) {
        return wrong("offset", emulator.offset);
    }
    if (emulator.magic.empty() || !plain(emulator.magic)) return wrong("magic", emulator.magic);
    if (!plain(emulator.mask)) return wrong("mask", emulator.mask);
    if (emulator.binary_path.substr(0, 1) != "/" || !plain(emulator.binary_path)) {
        return wrong("binary_path", emulator.binary_path);
    }
    if (emulator.flags.find_first_not_of("POCF") != std::string::npos) {
        return wrong("flags", emulator.flags);
    }
    std::string line = ":" + name + ":" + emulator.type + ":" + emulator.offset + ":" +
                       emulator.magic + ":" + emulator.mask + ":" + emulator.binary_path + ":" +
                       emulator.flags;
    if (line.size() > kMaxRegisterLine) {
        return fail(Code::kInvalidArgument,
                    "the entry is longer than " + std::to_string(kMaxRegisterLine) + " bytes");
    }
    return line;
}

Result<> setUpEmulator(const Emulator& emulator, const std::string& folder) {
    ARCA_TRY(const std::string line, emulatorLine(emulator));
    const std::string file = folder + "/register";
    if (::access(file.c_str(), F_OK) != 0) {
        if (::mount("binfmt_misc", folder.c_str(), "binfmt_misc", 0, nullptr) != 0) {
            if (errno == ENODEV || errno == ENOENT) {
                return fail(Code::kUnsupported, "this kernel has no binfmt_misc", errno);
            }
            // Somebody else has just mounted it.
            if (errno != EBUSY) return failErrno("mount binfmt_misc at " + folder);
        }
    }
    ARCA_TRY(const UniqueFd fd, base::openAt(AT_FDCWD, file, O_WRONLY));
    if (::write(fd.get(), line.data(), line.size()) < 0) {
        return failErrno("register " + emulator.name + " with binfmt_misc");
    }
    return {};
}

Result<> killAny(pid_t pid, int signal_number) {
    if (signal_number < 0 || signal_number > kLastSignal) {
        return fail(Code::kInvalidArgument, "no signal: " + std::to_string(signal_number));
    }
    const bool self = pid == 0 || pid == 1 || pid == ::getpid() || pid == -::getpgrp() ||
                      pid == std::numeric_limits<pid_t>::min();
    if (self) {
        return fail(Code::kInvalidArgument, "pid " + std::to_string(pid) + " is the agent's own");
    }
    if (::kill(pid, signal_number) != 0) return failErrno("kill " + std::to_string(pid));
    return {};
}

}  // namespace arca::vminitd
