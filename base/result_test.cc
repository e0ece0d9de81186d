#include "base/result.h"

#include <boost/test/unit_test.hpp>
#include <memory>

#include "base/error_texts.h"

namespace arca::base {
namespace {

Result<int> half(int number) {
    if (number % 2 != 0) return fail(Code::kInvalidArgument, std::to_string(number) + " is odd");
    return number / 2;
}

Result<int> quarter(int number) {
    ARCA_TRY(const int once, half(number));
    ARCA_TRY(const int twice, half(once));
    return twice;
}

Result<> isEven(int number) {
    ARCA_CHECK(half(number));
    return {};
}

BOOST_AUTO_TEST_SUITE(result)

BOOST_AUTO_TEST_CASE(try_gives_the_value_or_leaves_with_the_error) {
    BOOST_TEST(quarter(12).value() == 3);
    const auto failed = quarter(6);
    BOOST_TEST_REQUIRE(!failed.has_value());
    BOOST_TEST(failed.error().message() == "3 is odd");
    BOOST_TEST(isEven(2).has_value());
    BOOST_TEST(!isEven(3).has_value());
}

BOOST_AUTO_TEST_CASE(try_moves_values_that_cannot_be_copied) {
    const auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(7); };
    const auto take = [&]() -> Result<int> {
        ARCA_TRY(const std::unique_ptr<int> held, make());
        return *held;
    };
    BOOST_TEST(take().value() == 7);
}

BOOST_AUTO_TEST_CASE(errno_becomes_code_and_text) {
    const Error missing = Error::fromErrno("open /a", ENOENT);
    BOOST_TEST((missing.code() == Code::kNotFound));
    BOOST_TEST(missing.sysErrno() == ENOENT);
    BOOST_TEST(missing.message() == "open /a: no such file or directory");
    BOOST_TEST((Error::fromErrno("x", EEXIST).code() == Code::kAlreadyExists));
    BOOST_TEST((Error::fromErrno("x", EPERM).code() == Code::kPermissionDenied));
    BOOST_TEST((Error::fromErrno("x", EACCES).code() == Code::kPermissionDenied));
    BOOST_TEST((Error::fromErrno("x", EIO).code() == Code::kSystem));
}

BOOST_AUTO_TEST_CASE(errno_texts_are_in_lower_case_as_engines_match_them) {
    BOOST_TEST(errnoText(EACCES) == "permission denied");
    BOOST_TEST(errnoText(EISDIR) == "is a directory");
    BOOST_TEST(errnoText(ESRCH) == "no such process");
    BOOST_TEST(errnoText(ERFKILL) == "operation not possible due to RF-kill");
}

BOOST_AUTO_TEST_CASE(context_is_put_in_front) {
    BOOST_TEST(Error(Code::kInternal, "b").withContext("a").message() == "a: b");
}

BOOST_AUTO_TEST_CASE(code_names_are_those_of_the_guest_protocol) {
    BOOST_TEST(codeName(Code::kInvalidArgument) == "invalidArgument");
    BOOST_TEST(codeName(Code::kNotFound) == "notFound");
    BOOST_TEST(codeName(Code::kAlreadyExists) == "exists");
    BOOST_TEST(codeName(Code::kFailedPrecondition) == "invalidState");
    BOOST_TEST(codeName(Code::kSystem) == "internalError");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(error_texts)

// What engines look for, spelled out again here: a changed constant must fail.
BOOST_AUTO_TEST_CASE(are_word_for_word_what_callers_match) {
    const std::vector<std::pair<std::string_view, std::string_view>> table = {
        {texts::kContainerDoesNotExist, "container does not exist"},
        {texts::kContainerNotRunning, "container not running"},
        {texts::kContainerNotPaused, "container not paused"},
        {texts::kContainerIdExists, "container with given ID already exists"},
        {texts::kInvalidIdFormat, "invalid container ID format"},
        {texts::kIdEmpty, "container id cannot be empty"},
        {texts::kStartStopped, "cannot start a container that has stopped"},
        {texts::kStartRunning, "cannot start an already running container"},
        {texts::kStartPaused, "cannot start a container in the paused state"},
        {texts::kExecStopped, "cannot exec in a stopped container"},
        {texts::kExecPaused, "cannot exec in a paused container (use --ignore-paused to override)"},
        {texts::kExecArgsEmpty, "exec args cannot be empty"},
        {texts::kProcessMissing, "process property must not be empty"},
        {texts::kExecutableNotFound, "executable file not found in $PATH"},
        {texts::kInitStillRunning, "container init still running"},
        {texts::kTtyNeedsConsoleSocket,
         "cannot allocate tty if runc will detach without setting console socket"},
        {texts::kConsoleSocketWithoutTty,
         "cannot use console socket if runc will not detach or allocate tty"},
        {texts::kUnknownSignal, "unknown signal"},
        {texts::kCreateFailedPrefix, "runc create failed: "},
        {texts::kRunFailedPrefix, "runc run failed: "},
        {texts::kExecFailedPrefix, "exec failed: "},
        {texts::kStartProcessPrefix,
         "unable to start container process: error during container init: "},
    };
    for (const auto& [text, wanted] : table) BOOST_TEST(text == wanted);
}

BOOST_AUTO_TEST_CASE(does_not_exist_is_said_of_an_unknown_container_only) {
    for (const std::string_view other :
         {texts::kContainerNotRunning, texts::kContainerIdExists, texts::kExecutableNotFound,
          texts::kProcessMissing, texts::kInvalidIdFormat}) {
        BOOST_TEST(other.find("does not exist") == std::string_view::npos);
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::base
