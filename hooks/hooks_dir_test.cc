#include "hooks/hooks_dir.h"

#include <sys/stat.h>

#include <boost/test/unit_test.hpp>

#include "base/files.h"
#include "base/temp_dir.h"

namespace arca::hooks {
namespace {

using base::TempDir;

void put(const TempDir& dir, const std::string& name, const std::string& stages,
         const std::string& when = R"({"always": true})") {
    const std::string text = R"({"version": "1.0.0", "hook": {"path": "/)" + name +
                             R"("}, "when": )" + when + R"(, "stages": )" + stages + "}";
    BOOST_TEST_REQUIRE(base::replaceFile(dir.fd(), name, text).has_value());
}

std::vector<std::string> names(const std::vector<HookFile>& files) {
    std::vector<std::string> out;
    for (const HookFile& file : files) out.push_back(file.name);
    return out;
}

BOOST_AUTO_TEST_SUITE(hooks_dir)

BOOST_AUTO_TEST_CASE(files_are_in_the_order_of_their_names_without_regard_to_case) {
    const TempDir dir;
    for (const char* name : {"b.json", "A.json", "a.json", "C.json", "10-z.json", "9-a.json"}) {
        put(dir, name, R"(["prestart"])");
    }
    const auto files = loadHooksDir(dir.path());
    BOOST_TEST_REQUIRE(files.has_value(), files.error().message());
    BOOST_TEST(names(*files) == (std::vector<std::string>{"10-z.json", "9-a.json", "A.json",
                                                          "a.json", "b.json", "C.json"}));
}

BOOST_AUTO_TEST_CASE(only_json_files_count_and_a_missing_folder_has_none) {
    const TempDir dir;
    BOOST_TEST_REQUIRE(base::replaceFile(dir.fd(), "README", "not JSON").has_value());
    BOOST_TEST_REQUIRE(base::replaceFile(dir.fd(), "x.json.bak", "{").has_value());
    BOOST_TEST(loadHooksDir(dir.path()).value().empty());
    BOOST_TEST(loadHooksDir(dir.path() + "/missing").value().empty());
}

BOOST_AUTO_TEST_CASE(a_wrong_file_is_an_error_that_names_it) {
    const TempDir dir;
    put(dir, "a.json", R"(["prestart"])");
    put(dir, "b.json", R"(["never"])");
    const auto files = loadHooksDir(dir.path());
    BOOST_TEST_REQUIRE(!files.has_value());
    BOOST_TEST((files.error().code() == base::Code::kFailedPrecondition));
    BOOST_TEST(files.error().message() ==
               dir.path() + "/b.json: /stages/0: never is no stage of hooks");
}

BOOST_AUTO_TEST_CASE(what_is_no_file_is_an_error_and_not_waited_for) {
    for (const bool fifo : {false, true}) {
        const TempDir dir;
        const std::string path = dir.path() + "/x.json";
        BOOST_TEST_REQUIRE((fifo ? ::mkfifo(path.c_str(), 0600) : ::mkdir(path.c_str(), 0700)) ==
                           0);
        const auto files = loadHooksDir(dir.path());
        BOOST_TEST_REQUIRE(!files.has_value());
        BOOST_TEST(files.error().message() == path + ": not a regular file");
    }
}

BOOST_AUTO_TEST_CASE(matching_hooks_come_after_those_that_are_there) {
    const TempDir dir;
    put(dir, "1.json", R"(["prestart", "poststop"])");
    put(dir, "2.json", R"(["prestart"])", R"({"annotations": {"^a$": "^1$"}})");
    put(dir, "3.json", R"(["startContainer"])");
    const auto files = loadHooksDir(dir.path());
    BOOST_TEST_REQUIRE(files.has_value(), files.error().message());
    spec::Spec spec;
    spec.hooks.prestart.emplace_back().path = "/own";
    addMatchingHooks(*files, spec);
    BOOST_TEST_REQUIRE(spec.hooks.prestart.size() == 2U);
    BOOST_TEST(spec.hooks.prestart[0].path == "/own");
    BOOST_TEST(spec.hooks.prestart[1].file == "1.json");
    BOOST_TEST(spec.hooks.poststop.size() == 1U);
    BOOST_TEST(spec.hooks.startContainer.size() == 1U);
    spec.annotations["a"] = "1";
    spec.hooks = {};
    addMatchingHooks(*files, spec);
    BOOST_TEST(spec.hooks.prestart.size() == 2U);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::hooks
