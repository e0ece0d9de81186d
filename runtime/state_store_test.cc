#include "runtime/state_store.h"

#include <sys/file.h>
#include <sys/stat.h>

#include <boost/test/unit_test.hpp>

#include "base/error_texts.h"
#include "runtime/scratch_dir_test.h"

namespace arca::runtime {
namespace {

using base::Code;
namespace texts = base::texts;

Record someRecord() {
    Record record;
    record.id = "c1";
    record.stage = Stage::kCreated;
    record.init = {4242, 123456789012};
    record.bundle = "/b/c1";
    record.rootfs = "/b/c1/rootfs";
    record.created = "2026-01-02T03:04:05.678901234Z";
    record.oci_version = "1.2.1";
    record.annotations = {{"k", "v \"quoted\" \xff"}, {"l", ""}};
    record.owner = 1000;
    record.rootless = "auto";
    record.sandbox = "local";
    record.private_pid_namespace = true;
    record.home_given = true;
    spec::Hook hook;
    hook.path = "/bin/hook";
    hook.args = {"hook", "a b"};
    hook.env = std::vector<std::string>{"A=1"};
    hook.timeout = 7;
    record.hooks.poststop.push_back(hook);
    record.hooks.poststart.emplace_back().path = "/bin/true";
    return record;
}

struct Fixture {
    ScratchDir scratch;
    Globals globals;
    Fixture() { globals.root = scratch.file("a/root"); }
    StateStore open(StateStore::Missing missing = StateStore::Missing::kMake) {
        auto store = StateStore::open(globals, missing);
        BOOST_TEST_REQUIRE(store.has_value());
        return std::move(*store);
    }
};

BOOST_AUTO_TEST_SUITE(record)

BOOST_AUTO_TEST_CASE(what_is_written_is_read_back) {
    const Record before = someRecord();
    const auto after = parseRecord(writeRecord(before));
    BOOST_TEST_REQUIRE(after.has_value());
    BOOST_TEST(after->id == before.id);
    BOOST_TEST((after->stage == before.stage));
    BOOST_TEST(after->init.pid == before.init.pid);
    BOOST_TEST(after->init.start_time_ticks == before.init.start_time_ticks);
    BOOST_TEST(after->created == before.created);
    BOOST_TEST(after->annotations.at("l").empty());
    BOOST_TEST(after->owner == 1000U);
    BOOST_TEST(after->private_pid_namespace);
    BOOST_TEST(after->home_given);
    BOOST_TEST_REQUIRE(after->hooks.poststop.size() == 1U);
    BOOST_TEST(after->hooks.poststop[0].args[1] == "a b");
    BOOST_TEST(after->hooks.poststop[0].env->at(0) == "A=1");
    BOOST_TEST(*after->hooks.poststop[0].timeout == 7);
    BOOST_TEST(!after->hooks.poststart.at(0).env.has_value());
    BOOST_TEST(after->hooks.startContainer.empty());
}

BOOST_AUTO_TEST_CASE(anything_else_is_an_error) {
    const std::string good = writeRecord(someRecord());
    for (const std::string& bad :
         std::vector<std::string>{"", "{}", "[]", "null", good.substr(0, good.size() / 2),
                                  R"({"version":2})", R"({"version":1,"id":7})"}) {
        const auto record = parseRecord(bad);
        BOOST_TEST(!record.has_value());
    }
}

BOOST_AUTO_TEST_CASE(timestamps_are_those_of_go) {
    BOOST_TEST(timestamp(0, 0) == "1970-01-01T00:00:00Z");
    BOOST_TEST(timestamp(1767323045, 678901234) == "2026-01-02T03:04:05.678901234Z");
    BOOST_TEST(timestamp(1767323045, 7000) == "2026-01-02T03:04:05.000007Z");
    BOOST_TEST(timestamp(1767323045, 500000000) == "2026-01-02T03:04:05.5Z");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_FIXTURE_TEST_SUITE(state_store, Fixture)

BOOST_AUTO_TEST_CASE(a_missing_root_holds_no_container) {
    const StateStore store = open(StateStore::Missing::kAllow);
    BOOST_TEST(!store.exists());
    BOOST_TEST(store.ids()->empty());
    const auto found = store.find("c1");
    BOOST_TEST_REQUIRE(!found.has_value());
    BOOST_TEST(found.error().message() == texts::kContainerDoesNotExist);
    BOOST_TEST(::access(globals.root.c_str(), F_OK) != 0);
}

BOOST_AUTO_TEST_CASE(the_root_is_made_for_its_owner_only) {
    globals.root_sticky = true;
    (void)open();
    struct stat st {};
    BOOST_TEST(::stat(globals.root.c_str(), &st) == 0);
    BOOST_TEST((st.st_mode & 07777U) == 01700U);
}

BOOST_AUTO_TEST_CASE(an_id_can_be_taken_once) {
    const StateStore store = open();
    BOOST_TEST(store.reserve("c1").has_value());
    const auto again = store.reserve("c1");
    BOOST_TEST_REQUIRE(!again.has_value());
    BOOST_TEST((again.error().code() == Code::kAlreadyExists));
    BOOST_TEST(again.error().message() == texts::kContainerIdExists);
}

BOOST_AUTO_TEST_CASE(malformed_ids_touch_nothing) {
    const StateStore store = open();
    const std::string long_id(300, 'a');
    for (const std::string& id : std::vector<std::string>{"", ".", "..", "../x", "a/b", "a b",
                                                          "a\n", "\xc3\xa9", long_id}) {
        BOOST_TEST(!store.reserve(id).has_value());
        BOOST_TEST(!store.find(id).has_value());
    }
    BOOST_TEST(base::listDir(store.fd())->empty());
    for (const std::string& id : std::vector<std::string>{"..0", "ok_1.2+3-", "-x"}) {
        BOOST_TEST(store.reserve(id).has_value());
    }
}

BOOST_AUTO_TEST_CASE(a_directory_without_a_record_is_no_container) {
    const StateStore store = open();
    const auto dir = store.reserve("c1");
    const auto record = dir->load();
    BOOST_TEST_REQUIRE(!record.has_value());
    BOOST_TEST(record.error().message() == texts::kContainerDoesNotExist);
    BOOST_TEST((record.error().code() == Code::kNotFound));
}

BOOST_AUTO_TEST_CASE(a_record_is_kept_until_the_container_is_removed) {
    const StateStore store = open();
    {
        auto dir = store.reserve("c1");
        BOOST_TEST(dir->save(someRecord()).has_value());
    }
    auto dir = store.find("c1");
    BOOST_TEST(dir->load()->bundle == "/b/c1");
    BOOST_TEST(::mkdirat(dir->fd(), "guest", 0700) == 0);
    BOOST_TEST(dir->lock().has_value());
    BOOST_TEST(dir->remove().has_value());
    BOOST_TEST(!store.find("c1").has_value());
    BOOST_TEST(base::listDir(store.fd())->empty());
}

BOOST_AUTO_TEST_CASE(the_lock_is_seen_by_others_and_ends_with_its_holder) {
    const StateStore store = open();
    auto holder = std::make_unique<ContainerDir>(std::move(*store.reserve("c1")));
    auto other = store.find("c1");
    BOOST_TEST(other->lockedByAnother());
    const auto waited = other->lock(std::chrono::milliseconds(20));
    BOOST_TEST_REQUIRE(!waited.has_value());
    BOOST_TEST((waited.error().code() == Code::kDeadlineExceeded));
    holder.reset();
    BOOST_TEST(!other->lockedByAnother());
    BOOST_TEST(other->lock().has_value());
}

BOOST_AUTO_TEST_CASE(who_waited_for_a_deleted_container_is_told) {
    const StateStore store = open();
    auto first = store.reserve("c1");
    auto second = store.find("c1");
    BOOST_TEST(first->remove().has_value());
    first->unlock();
    const auto locked = second->lock();
    BOOST_TEST_REQUIRE(!locked.has_value());
    BOOST_TEST(locked.error().message() == texts::kContainerDoesNotExist);
    // A new one of the same name is another container.
    BOOST_TEST(store.reserve("c1").has_value());
    BOOST_TEST(!second->lock().has_value());
}

BOOST_AUTO_TEST_CASE(only_directories_with_an_ids_name_are_listed) {
    const StateStore store = open();
    BOOST_TEST(store.reserve("b").has_value());
    BOOST_TEST(store.reserve("a").has_value());
    BOOST_TEST(::mkdirat(store.fd(), "@local", 0700) == 0);
    writeText(globals.root + "/file", "");
    BOOST_TEST(*store.ids() == (std::vector<std::string>{"a", "b"}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(no_descriptor_is_left) {
    const size_t before = openDescriptors();
    {
        const StateStore store = open();
        auto dir = store.reserve("c1");
        BOOST_TEST(dir->save(someRecord()).has_value());
        BOOST_TEST(store.find("c1")->load().has_value());
        BOOST_TEST(!store.find("c2").has_value());
    }
    BOOST_TEST(openDescriptors() == before);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
