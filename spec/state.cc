#include "spec/state.h"

#include "spec/json_writer.h"

namespace arca::spec {

std::string writeState(const State& state) {
    // Hooks bring their own parsers: only valid UTF-8 for them.
    JsonWriter out(JsonUtf8::kStrict);
    out.beginObject();
    put(out, "ociVersion", state.ociVersion);
    put(out, "id", state.id);
    put(out, "status", state.status);
    putSet(out, "pid", state.pid);
    put(out, "bundle", state.bundle);
    putSet(out, "annotations", state.annotations);
    out.endObject();
    return out.take();
}

}  // namespace arca::spec
