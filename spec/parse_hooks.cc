// The `hooks` object. Source: runtime-spec config.md, "POSIX-platform Hooks".
#include "spec/value_rules.h"

namespace arca::spec {

static void decode(JsonValue value, Hook& target) {
    const JsonObject object(value);
    object.require("path", target.path);
    if (!isAbsolute(target.path)) {
        object.fail("path", "must be an absolute path, is " + shown(target.path));
    }
    object.get("args", target.args);
    object.get("env", target.env);
    checkEnvironment(object.find("env"));
    getAtLeast(object, "timeout", target.timeout, 1);
}

void decode(JsonValue value, Hooks& target) {
    const JsonObject object(value);
    object.get("prestart", target.prestart);
    object.get("createRuntime", target.createRuntime);
    object.get("createContainer", target.createContainer);
    object.get("startContainer", target.startContainer);
    object.get("poststart", target.poststart);
    object.get("poststop", target.poststop);
}

}  // namespace arca::spec
