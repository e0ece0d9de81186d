#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "base/process.h"
#include "vmexec/test_body.h"

namespace {

using arca::proto::BodyMessage;
using arca::spec::NamespaceType;
using arca::spec::Plan;
using arca::vmexec::testing::Body;
using arca::vmexec::testing::Bundle;
using arca::vmexec::testing::defaultPlan;
using arca::vmexec::testing::execPlan;

namespace utf = boost::unit_test;

utf::test_tools::assertion_result asRoot(utf::test_unit_id) {
    utf::test_tools::assertion_result result(::geteuid() == 0);
    result.message() << "needs root: namespaces and mounts";
    return result;
}

// Runs `script` in a container of `plan` and gives what it wrote.
std::string outputOf(Plan plan, const std::string& script) {
    plan.spec.process->args = {"sh", "-c", script};
    Body body(plan);
    BOOST_TEST(body.run() == 0, body.failure());
    return body.output();
}

std::string failureOf(const Plan& plan) {
    Body body(plan);
    BOOST_TEST(!body.ready());
    return body.failure();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(vmexec_process, *utf::precondition(asRoot))

BOOST_AUTO_TEST_CASE(program_runs_only_after_start_and_its_exit_code_is_seen) {
    const Bundle bundle;
    Body body(defaultPlan(bundle, {"sh", "-c", "echo hello; exit 7"}));
    BOOST_TEST_REQUIRE(body.ready(), body.failure());
    body.commit();
    BOOST_TEST(body.gateIsOpen());
    BOOST_TEST_REQUIRE(body.start(), body.failure());
    BOOST_TEST(body.wait() == 7);
    BOOST_TEST(body.output() == "hello\n");
    BOOST_TEST(!body.gateIsOpen());
}

BOOST_AUTO_TEST_SUITE_END()
