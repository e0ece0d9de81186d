#include "runtime/kvm_verdict.h"

#include <boost/test/unit_test.hpp>
#include <fstream>
#include <string>

#include "base/temp_dir.h"

namespace arca::runtime {
namespace {

BOOST_AUTO_TEST_SUITE(kvm_verdict)

BOOST_AUTO_TEST_CASE(a_verdict_is_kept_and_holds) {
    const base::TempDir folder;
    const std::string path = folder.path() + "/below/@kvm";
    BOOST_TEST(!readKvmVerdict(path).has_value());
    writeKvmVerdict(path, true);
    BOOST_TEST(readKvmVerdict(path).value());
    writeKvmVerdict(path, false);
    BOOST_TEST(!readKvmVerdict(path).value());
    BOOST_TEST(chooseAccel("auto", path) == "tcg");  // with or without /dev/kvm
    BOOST_TEST(chooseAccel("kvm", path) == "kvm");
    BOOST_TEST(chooseAccel("tcg", path) == "tcg");
}

BOOST_AUTO_TEST_CASE(a_verdict_of_another_boot_or_of_nobody_is_none) {
    const base::TempDir folder;
    const std::string path = folder.path() + "/@kvm";
    for (const char* text : {"works", "works 00000000-0000-0000-0000-000000000000", "yes", ""}) {
        std::ofstream(path) << text;
        BOOST_TEST(!readKvmVerdict(path).has_value());
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
