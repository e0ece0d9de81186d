// Word of the kernel's that something about a network namespace's interfaces has changed.
#pragma once

#include <memory>

#include "base/result.h"

struct nl_sock;

namespace arca::network {

class Changes {
 public:
    // Of the calling thread's network namespace: links, addresses and routes come, go or change.
    static base::Result<Changes> open();

    // For poll(2): readable when there has been one.
    [[nodiscard]] int fd() const;
    // Takes all that has been told so far, which says no more than that there was something.
    void drain();

 private:
    explicit Changes(std::shared_ptr<nl_sock> socket) : socket_(std::move(socket)) {}

    std::shared_ptr<nl_sock> socket_;
};

}  // namespace arca::network
