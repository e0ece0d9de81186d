// Whether this machine's KVM runs a guest: found out by a boot, and remembered until the next boot
// of the machine. That /dev/kvm can be opened says little: nested, it often runs no kernel.
#pragma once

#include <optional>
#include <string>

namespace arca::runtime {

// Where the verdict of this user is kept; "": nowhere.
std::string kvmVerdictPath();

// What was found out since the machine started; nullopt: nothing yet.
std::optional<bool> readKvmVerdict(const std::string& path);

// What cannot be written is found out again: no error.
void writeKvmVerdict(const std::string& path, bool works);

// Of the setting vm.accel: "tcg", "kvm", or "auto" where only a boot can tell.
std::string chooseAccel(const std::string& setting, const std::string& verdict_path);

}  // namespace arca::runtime
