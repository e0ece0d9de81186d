// Plays the agent for tests: runs the built vmexec in a scratch busybox rootfs and holds the
// conversation of proto/body_protocol.h with it. Needs root.
#pragma once

#include <sys/types.h>

#include <boost/test/unit_test.hpp>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "proto/body_protocol.h"
#include "spec/plan.h"

namespace arca::vmexec::testing {

// A folder with rootfs/ (busybox and its usual links) that goes away with the object.
class Bundle {
 public:
    Bundle();
    Bundle(const Bundle&) = delete;
    Bundle& operator=(const Bundle&) = delete;
    ~Bundle();
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string rootfs(const std::string& name = "") const;
    // Writes a file of the rootfs; `name` begins with '/'.
    void write(const std::string& name, const std::string& text, mode_t mode = 0644) const;

 private:
    std::string path_;
};

// A plan as the agent makes it of the default configuration: five new namespaces, the usual mounts,
// `args` as the program.
spec::Plan defaultPlan(const Bundle& bundle, const std::vector<std::string>& args);

// A plan for another process in the container whose init is `init_pid`.
spec::Plan execPlan(const spec::Plan& container, pid_t init_pid,
                    const std::vector<std::string>& args);

// One vmexec and what it becomes. Every wait has a deadline; a message that does not come fails the
// test case.
class Body {
 public:
    struct Packet {
        proto::BodyMessage type{};
        int32_t value = 0;
        std::string text;
        std::vector<base::UniqueFd> fds;
        bool eof = false;
    };

    explicit Body(const spec::Plan& plan);
    Body(const Body&) = delete;
    Body& operator=(const Body&) = delete;
    ~Body();

    // The next message but warnings, which are collected.
    Packet next();
    // Steps of the conversation; each gives false when a failure came instead (see failure()).
    bool pid();
    bool ready();  // pid(), kGo, and what comes up to kReady
    void send(proto::BodyMessage type, int32_t value = 0, const std::string& text = "");
    void commit();
    // Connects to the gate and starts the program; false = kFailure came back.
    bool start(int32_t value = 0, const std::string& text = "");
    bool gateIsOpen() const;  // somebody listens
    void closeSync() { sync_.reset(); }

    // Reaps the process: exit code or 128 + signal.
    int wait();
    // All of it at once: ready, commit, start, wait. Gives the exit code, or -1 on a failure.
    int run();
    // What the program wrote to stdout and stderr, up to end of file.
    std::string output();

    [[nodiscard]] pid_t initPid() const { return pid_; }
    [[nodiscard]] const std::string& failure() const { return failure_; }
    [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
    [[nodiscard]] int console() const { return console_.get(); }
    bool hooks_asked = false;  // kMounted came

 private:
    std::string dir_;
    base::UniqueFd sync_;
    base::UniqueFd out_;
    base::UniqueFd console_;
    pid_t stage1_ = -1;
    pid_t pid_ = -1;
    bool reaped_ = false;
    std::string failure_;
    std::vector<std::string> warnings_;
};

// Precondition of a suite: skipped with a reason unless root.
boost::test_tools::assertion_result asRoot(boost::unit_test::test_unit_id id);

// What the shell script wrote in a container of `plan`.
std::string outputOf(spec::Plan plan, const std::string& script);

// Why the container cannot be created.
std::string failureOf(const spec::Plan& plan);

// `plan` with a user namespace of 2000 ids from 100000 on.
spec::Plan withUserNamespace(spec::Plan plan);

// Says what was looked for when it is not there.
bool contains(const std::string& text, const std::string& part);

}  // namespace arca::vmexec::testing
