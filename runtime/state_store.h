// The state root: a directory for each container, its record, and the lock on it.
//
// Layout: ARCHITECTURE.md, "Files on the host". A flock(2) on the container's directory serialises
// what changes it (create, start, delete, pause, resume, update); what only looks or signals takes
// none. The lock goes with its process, so a call that dies leaves nothing locked.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/context.h"
#include "runtime/record.h"

namespace arca::runtime {

// How long a call waits for another one on the same container.
inline constexpr std::chrono::seconds kLockPatience{10};

// One container's directory, held open. Every access goes through it: if it is deleted and made
// anew meanwhile, this one stays the old, empty one.
class ContainerDir {
 public:
    ContainerDir(std::string id, int root_fd, base::UniqueFd fd)
        : id_(std::move(id)), root_fd_(root_fd), fd_(std::move(fd)) {}

    [[nodiscard]] const std::string& id() const { return id_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

    // Waits for the lock. kDeadlineExceeded after `patience`; kNotFound when the container was
    // deleted while waiting.
    base::Result<> lock(std::chrono::milliseconds patience = kLockPatience);
    void unlock();
    // True while another process holds the lock.
    [[nodiscard]] bool lockedByAnother() const;

    // kNotFound ("container does not exist") when there is no record.
    [[nodiscard]] base::Result<Record> load() const;
    [[nodiscard]] base::Result<> save(const Record& record) const;

    // Deletes the directory and all in it, the record last. The lock must be held.
    base::Result<> remove();

 private:
    [[nodiscard]] bool stillLinked() const;

    std::string id_;
    int root_fd_;  // borrowed from the StateStore
    base::UniqueFd fd_;
};

class StateStore {
 public:
    enum class Missing {
        kMake,   // create and run
        kAllow,  // everything else: a store without a root has no containers
    };
    static base::Result<StateStore> open(const Globals& globals, Missing missing);

    [[nodiscard]] bool exists() const { return fd_.valid(); }
    [[nodiscard]] int fd() const { return fd_.get(); }

    // Makes the directory of a new container and locks it. kAlreadyExists when the id is in use.
    [[nodiscard]] base::Result<ContainerDir> reserve(const std::string& id) const;
    // Checks the id and opens the directory. kNotFound: "container does not exist".
    [[nodiscard]] base::Result<ContainerDir> find(const std::string& id) const;
    // Names of all containers' directories, sorted.
    [[nodiscard]] base::Result<std::vector<std::string>> ids() const;

 private:
    explicit StateStore(base::UniqueFd fd) : fd_(std::move(fd)) {}
    base::UniqueFd fd_;  // invalid: there is no root
};

}  // namespace arca::runtime
