"""Containers that are only there for what their cgroup says."""

from arca_test import Case, busybox_rootfs


class CgroupCase(Case):
    def bundle(self, *args, **changes):  # all share one read-only root: a copy for each costs most of a case's time
        if not changes.get("writable"):
            changes = {"rootfs": False, "root": {"path": busybox_rootfs(), "readonly": True}, **changes}
        return super().bundle(*args, **changes)

    def created(self, resources, **linux):
        return self.create(self.bundle("sleep", "600", linux={"resources": resources, **linux}))

    def create_fails(self, resources, *says, **linux):
        """Gives the id that no container has got."""
        identity = self.new_id()
        self.ids.append(identity)
        bundle = self.bundle("sleep", "600", linux={"resources": resources, **linux})
        self.fails("create", "--bundle", bundle.path, identity, says=says)
        return identity
