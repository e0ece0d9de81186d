// The command line of arca-tap-forwarder.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "hooks/tap_forwarder/dns_mappings.h"

namespace arca::tap_forwarder {

inline constexpr char kReadyVariable[] = "ARCA_READY_FD";

extern const char kHelp[];

struct Options {
    std::string listen = "vsock://2";  // the host, whose connections are taken
    std::string resolv_conf = "/etc/resolv.conf";
    std::string dns_socket = kDnsControlSocket;
    std::optional<int> ready_fd{};
    std::vector<std::string> program{};  // to be executed beside the forwarder; empty: none
    bool help = false;
    bool version = false;
};

// `ready_variable`: the environment's kReadyVariable, null when it is not set; the flag comes
// first, and with a program to run neither counts. kInvalidArgument names what is wrong.
base::Result<Options> parseOptions(const std::vector<std::string_view>& args,
                                   const char* ready_variable);

}  // namespace arca::tap_forwarder
