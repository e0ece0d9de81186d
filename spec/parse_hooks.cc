// The `hooks` object. Source: runtime-spec config.md, "POSIX-platform Hooks".
#include <sys/socket.h>
#include <sys/un.h>

#include "base/ids.h"
#include "base/signals.h"
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

constexpr int32_t kMostStopSeconds = 30;

// Only a stage before the program can wait for something that is to serve it.
constexpr char kServiceStages[] = "only prestart and createRuntime hooks can be services";

// One of "fd", "port" and "socket".
void getReady(const JsonObject& service, HookService& target) {
    const JsonValue value = service.find("ready");
    if (!value.exists()) return;
    const JsonObject ready(value);
    static constexpr std::string_view kMembers[] = {"fd", "port", "socket"};
    refuseOthers(value, kMembers);
    size_t given = 0;
    bool fd = false;
    if (ready.get("fd", fd)) {
        ++given;
        target.ready = HookService::Ready::kFd;
        if (!fd) ready.fail("fd", "must be true");
    }
    if (ready.find("port").exists()) {
        ++given;
        target.ready = HookService::Ready::kPort;
        getBetween(ready, "port", target.port, 1, 0xfffffffe);
    }
    if (ready.get("socket", target.socket)) {
        ++given;
        target.ready = HookService::Ready::kSocket;
        if (!isAbsolute(target.socket)) ready.fail("socket", "must be an absolute path");
        if (target.socket.size() >= sizeof(sockaddr_un::sun_path)) {
            ready.fail("socket", "is longer than a socket's path can be");
        }
    }
    if (given != 1) service.fail("ready", "must have one of fd, port and socket");
}

void getStopSignal(const JsonObject& service, int& target) {
    std::string name;
    if (!service.get("stopSignal", name)) return;
    const auto number = base::parseSignal(name);
    if (!number || *number == 0) return service.fail("stopSignal", shown(name) + " is no signal");
    target = *number;
}

void getNamespaces(const JsonObject& service, HookService& target) {
    std::vector<std::string> list;
    service.get("namespaces", list);
    for (const std::string& name : list) {
        if (name != "network") service.fail("namespaces", shown(name) + " is not network");
        target.network_namespace = true;
    }
}

}  // namespace

void decode(JsonValue value, HookService& target) {
    const JsonObject object(value);
    // Ours alone, so that a word that nobody knows can only be a mistake.
    static constexpr std::string_view kMembers[] = {"name",   "ready",      "namespaces",
                                                    "onExit", "stopSignal", "stopTimeout"};
    refuseOthers(value, kMembers);
    object.get("name", target.name);
    if (!target.name.empty() && !base::validateId(target.name)) {
        object.fail("name", shown(target.name) + " is not of the form of an id");
    }
    getReady(object, target);
    getNamespaces(object, target);
    std::string on_exit;
    static constexpr std::string_view kOnExit[] = {"ignore", "kill"};
    getOneOf(object, "onExit", on_exit, kOnExit, "is neither ignore nor kill");
    if (on_exit == "kill") target.on_exit = HookService::OnExit::kKill;
    getStopSignal(object, target.stop_signal);
    getBetween(object, "stopTimeout", target.stop_timeout, 0, kMostStopSeconds);
}

void decode(JsonValue value, Hook& target) {
    const JsonObject object(value);
    object.require("path", target.path);
    if (!isAbsolute(target.path)) {
        object.fail("path", "must be an absolute path, is " + shown(target.path));
    }
    object.get("args", target.args);
    object.get("env", target.env);
    checkEnvironment(object.find("env"));
    getAtLeast(object, "timeout", target.timeout, 1);
    if (value.reader()->source() == Source::kWire) object.get("file", target.file);
    if (object.get("service", target.service)) nameService(target, object);
}

void nameService(Hook& hook, const JsonObject& at) {
    if (!hook.service->name.empty()) return;
    hook.service->name = hook.path.substr(hook.path.rfind('/') + 1);
    if (base::validateId(hook.service->name)) return;
    at.fail("service", "needs a name: that of its program is not of the form of an id");
}

static void getStage(const JsonObject& object, const char* stage, std::vector<Hook>& target) {
    object.get(stage, target);
    for (size_t i = 0; i < target.size(); ++i) {
        if (!target[i].service) continue;
        object.find(stage).element(i).fail(kServiceStages);
    }
}

void decode(JsonValue value, Hooks& target) {
    const JsonObject object(value);
    object.get("prestart", target.prestart);
    object.get("createRuntime", target.createRuntime);
    getStage(object, "createContainer", target.createContainer);
    getStage(object, "startContainer", target.startContainer);
    getStage(object, "poststart", target.poststart);
    getStage(object, "poststop", target.poststop);
}

std::vector<Hook>* Hooks::find(std::string_view stage) {
    if (stage == "prestart") return &prestart;
    if (stage == "createRuntime") return &createRuntime;
    if (stage == "createContainer") return &createContainer;
    if (stage == "startContainer") return &startContainer;
    if (stage == "poststart") return &poststart;
    if (stage == "poststop") return &poststop;
    return nullptr;
}

}  // namespace arca::spec
