"""ComputeManager: every RPC verb, a few lines each. Claims and settling are task.py's, the doing is ops/'s.

`action_id` names the work order that a message rings for; without it the message is a plain scheduler's and the order
is written on arrival. Verbs answer after the work is done, so `call` works as well as `cast`; builds, snapshots and
migrations wait their turn, and answer once their order is in the journal.
"""

from __future__ import annotations

from typing import Any

from compute import auditing, block_devices
from compute.context import RequestContext
from compute.errors import InvalidInputError
from compute.host import Host
from compute.messaging.dispatch import exposed
from compute.ops import console, guest, lifecycle, migrate, power, rescue, resize, snapshot, volumes
from compute.states import Task
from virt.driver import LiveMigratable, SharesStorage, require
from virt.errors import GuestNotFoundError


class ComputeManager:
    """The verbs of topic `compute` (Nova 2011.2's names and arguments)."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._tasks = host.tasks
        self._settings = host.settings

    # -- life cycle ---------------------------------------------------------------------------------------------------

    @exposed
    def run_instance(
        self,
        context: RequestContext,
        instance_id: int,
        injected_files: list[Any] | None = None,
        action_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Build an instance. Builds wait their turn: this returns when the order is in the queue."""
        lifecycle.check_injected_files(injected_files or [])
        given = {"injected_files": injected_files, "block_device_mapping": kwargs.get("block_device_mapping")}
        block_devices.read(given["block_device_mapping"] or [])
        args = {name: value for name, value in given.items() if value}
        order_id = self._tasks.order(context, instance_id, Task.SPAWNING, action_id, args)

        def build() -> None:
            with self._tasks.claim(context, instance_id, Task.SPAWNING, order_id) as work:
                lifecycle.run(work, self._settings, self._host.scheduler)

        self._host.builds.submit(order_id, self._host.guarded(build))

    @exposed
    def terminate_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """End an instance, whatever runs on it."""
        with self._tasks.claim(context, instance_id, Task.DELETING, action_id) as work:
            lifecycle.terminate(work, self._host.maker, self._settings.service_down_time)

    @exposed
    def reboot_instance(
        self, context: RequestContext, instance_id: int, reboot_type: str = "HARD", action_id: int | None = None
    ) -> None:
        """Restart an instance: HARD pulls the plug, SOFT asks the guest first."""
        if reboot_type not in {"HARD", "SOFT"}:
            raise InvalidInputError(f"reboot_instance: reboot_type must be HARD or SOFT, not {reboot_type!r:.40}")
        hard = reboot_type == "HARD"
        task = Task.REBOOTING_HARD if hard else Task.REBOOTING
        with self._tasks.claim(context, instance_id, task, action_id, {"reboot_type": reboot_type}) as work:
            lifecycle.reboot(work, self._settings, hard=hard)

    @exposed
    def start_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Power a stopped instance on."""
        with self._tasks.claim(context, instance_id, Task.STARTING, action_id) as work:
            lifecycle.start(work)

    @exposed
    def stop_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Shut an instance down: asked first, then the plug."""
        with self._tasks.claim(context, instance_id, Task.STOPPING, action_id) as work:
            lifecycle.stop(work, self._settings)

    @exposed
    def pause_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Freeze an instance in memory."""
        with self._tasks.claim(context, instance_id, Task.PAUSING, action_id) as work:
            power.pause(work)

    @exposed
    def unpause_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Let a paused instance go on."""
        with self._tasks.claim(context, instance_id, Task.UNPAUSING, action_id) as work:
            power.unpause(work)

    @exposed
    def suspend_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Save an instance's memory to disk and stop it."""
        with self._tasks.claim(context, instance_id, Task.SUSPENDING, action_id) as work:
            power.suspend(work)

    @exposed
    def resume_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Go on from saved memory."""
        with self._tasks.claim(context, instance_id, Task.RESUMING, action_id) as work:
            power.resume(work)

    @exposed
    def rescue_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Boot an instance from the rescue image."""
        with self._tasks.claim(context, instance_id, Task.RESCUING, action_id) as work:
            rescue.rescue(work, self._settings)

    @exposed
    def unrescue_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Boot an instance from its own disk again."""
        with self._tasks.claim(context, instance_id, Task.UNRESCUING, action_id) as work:
            rescue.unrescue(work)

    @exposed
    def snapshot_instance(
        self, context: RequestContext, instance_id: int, image_id: int, action_id: int | None = None
    ) -> None:
        """Complete the image record `image_id` with a copy of the root disk; snapshots wait their turn."""
        order_id = self._tasks.order(context, instance_id, Task.SNAPSHOTTING, action_id, {"image_id": image_id})

        def copy() -> None:
            with self._tasks.claim(context, instance_id, Task.SNAPSHOTTING, order_id) as work:
                snapshot.snapshot(work, self._settings)

        self._host.snapshots.submit(order_id, self._host.guarded(copy))

    # -- inside the guest ---------------------------------------------------------------------------------------------

    @exposed
    def set_admin_password(
        self, context: RequestContext, instance_id: int, new_pass: str | None = None, action_id: int | None = None
    ) -> None:
        """Set the administrator's password in the guest."""
        with self._tasks.claim(context, instance_id, Task.SETTING_PASSWORD, action_id, {"new_pass": new_pass}) as work:
            guest.set_admin_password(work, self._settings.password_length)

    @exposed
    def inject_file(
        self,
        context: RequestContext,
        instance_id: int,
        path: str = "",
        file_contents: str = "",
        encoding: str = "text",
        action_id: int | None = None,
    ) -> None:
        """Write a file in the guest; encoding: text, or base64 for bytes that are none."""
        args = {"path": path, "file_contents": file_contents, "encoding": encoding}
        with self._tasks.claim(context, instance_id, Task.INJECTING_FILE, action_id, args) as work:
            guest.inject_file(work)

    @exposed
    def reset_network(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Have the guest configure its network anew."""
        with self._tasks.claim(context, instance_id, Task.RESETTING_NETWORK, action_id) as work:
            guest.reset_network(work)

    @exposed
    def inject_network_info(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> None:
        """Hand the guest its network facts."""
        with self._tasks.claim(context, instance_id, Task.INJECTING_NETWORK_INFO, action_id) as work:
            guest.inject_network_info(work)

    # -- volumes ------------------------------------------------------------------------------------------------------

    @exposed
    def attach_volume(
        self,
        context: RequestContext,
        instance_id: int,
        volume_id: int,
        mountpoint: str,
        action_id: int | None = None,
    ) -> bool:
        """Plug a volume in at `mountpoint`."""
        args = {"volume_id": volume_id, "mountpoint": mountpoint}
        with self._tasks.claim(context, instance_id, Task.ATTACHING_VOLUME, action_id, args) as work:
            volumes.attach(work, self._host.specs)
        return True

    @exposed
    def detach_volume(
        self, context: RequestContext, instance_id: int, volume_id: int, action_id: int | None = None
    ) -> bool:
        """Unplug a volume."""
        args = {"volume_id": volume_id}
        with self._tasks.claim(context, instance_id, Task.DETACHING_VOLUME, action_id, args) as work:
            volumes.detach(work, self._host.specs)
        return True

    # -- resize -------------------------------------------------------------------------------------------------------

    @exposed
    def prep_resize(
        self, context: RequestContext, instance_id: int, flavor_id: int | str = "", action_id: int | None = None
    ) -> None:
        """On the destination: begin a resize."""
        with self._tasks.claim(context, instance_id, Task.RESIZING, action_id, {"flavor_id": flavor_id}) as work:
            resize.prepare(work, self._settings)

    @exposed
    def resize_instance(
        self, context: RequestContext, instance_id: int, migration_id: int = 0, action_id: int | None = None
    ) -> None:
        """On the source: stop the guest and hand its disks over."""
        with self._leg(context, instance_id, Task.RESIZING, "resize_instance", action_id, migration_id) as work:
            resize.migrate(work, self._settings)

    @exposed
    def finish_resize(
        self,
        context: RequestContext,
        instance_id: int,
        migration_id: int = 0,
        disk_info: str = "",
        action_id: int | None = None,
    ) -> None:
        """On the destination: start the guest at its new size."""
        with self._leg(context, instance_id, Task.RESIZING, "finish_resize", action_id, migration_id) as work:
            resize.finish(work)

    @exposed
    def confirm_resize(
        self, context: RequestContext, instance_id: int, migration_id: int, action_id: int | None = None
    ) -> None:
        """On the source: drop what a revert would have needed."""
        args = {"migration_id": migration_id}
        with self._tasks.claim(context, instance_id, Task.CONFIRMING_RESIZE, action_id, args) as work:
            resize.confirm(work)

    @exposed
    def revert_resize(
        self, context: RequestContext, instance_id: int, migration_id: int, action_id: int | None = None
    ) -> None:
        """On the destination: give the guest back."""
        args = {"migration_id": migration_id}
        with self._tasks.claim(context, instance_id, Task.REVERTING_RESIZE, action_id, args) as work:
            resize.revert(work)

    @exposed
    def finish_revert_resize(
        self, context: RequestContext, instance_id: int, migration_id: int = 0, action_id: int | None = None
    ) -> None:
        """On the source: start the guest at its old size again, after a revert or a resize that failed."""
        order = self._host.order(action_id, "finish_revert_resize")
        with self._leg(context, instance_id, Task(order.action), order.step, order.id, migration_id) as work:
            resize.finish_revert(work)

    # -- migration ----------------------------------------------------------------------------------------------------

    @exposed
    def live_migration(
        self, context: RequestContext, instance_id: int, dest: str, action_id: int | None = None
    ) -> None:
        """Move a running guest to `dest`. Migrations wait their turn: this returns when the order is in the queue."""
        order_id = self._tasks.order(context, instance_id, Task.MIGRATING, action_id, {"dest": dest})

        def move() -> None:
            with self._tasks.claim(context, instance_id, Task.MIGRATING, order_id) as work:
                migrate.live_migrate(work, self._host.rpc)

        self._host.migrations.submit(order_id, self._host.guarded(move))

    @exposed
    def pre_live_migration(self, context: RequestContext, instance_id: int, time: Any = None) -> str | None:
        """On the destination: have everything in place for a guest that comes; this host's address for it.

        `time` is 2011.2's test seam; unused.
        """
        return migrate.prepare(self._host.driver, self._host.spec_of(instance_id), self._settings)

    @exposed
    def rollback_live_migration(self, context: RequestContext, instance_id: int) -> None:
        """On the destination: forget a guest that did not come; one that runs here is left alone."""
        self._host.forget_guest(instance_id)

    @exposed
    def get_power_state(self, context: RequestContext, instance_id: int) -> int | None:
        """What this host's hypervisor says of the guest; None when it does not know it."""
        try:
            return int(self._host.driver.get_info(self._host.specs.name_of(instance_id)).power)
        except GuestNotFoundError:
            return None

    @exposed
    def compare_cpu(self, context: RequestContext, cpu_info: str) -> bool:
        """True if guests of a host with that CPU can run here; else HypervisorError says why not."""
        require(self._host.driver, LiveMigratable).compare_cpu(cpu_info)
        return True

    @exposed
    def create_shared_storage_test_file(self, context: RequestContext) -> str:
        """Make a file that only hosts sharing this one's instances directory can see; its name."""
        return require(self._host.driver, SharesStorage).create_shared_storage_test_file()

    @exposed
    def check_shared_storage_test_file(self, context: RequestContext, filename: str) -> bool:
        """True if that file is visible here."""
        return require(self._host.driver, SharesStorage).check_shared_storage_test_file(filename)

    @exposed
    def cleanup_shared_storage_test_file(self, context: RequestContext, filename: str) -> None:
        """Remove it."""
        require(self._host.driver, SharesStorage).cleanup_shared_storage_test_file(filename)

    # -- consoles and figures -----------------------------------------------------------------------------------------

    @exposed
    def get_console_output(self, context: RequestContext, instance_id: int) -> str:
        """The end of the console log."""
        return console.output(self._host.driver, self._host.spec_of(instance_id))

    @exposed
    def get_ajax_console(self, context: RequestContext, instance_id: int) -> dict[str, Any]:
        """token, host and port of the serial console."""
        return console.ajax(self._host.driver, self._host.spec_of(instance_id))

    @exposed
    def get_vnc_console(self, context: RequestContext, instance_id: int) -> dict[str, Any]:
        """token, host and port of the screen."""
        return console.vnc(self._host.driver, self._host.spec_of(instance_id))

    @exposed
    def get_diagnostics(self, context: RequestContext, instance_id: int) -> dict[str, int]:
        """The guest's counters."""
        return console.diagnostics(self._host.driver, self._host.spec_of(instance_id))

    @exposed
    def get_console_topic(self, context: RequestContext) -> str:
        """Where this host's console proxy listens."""
        return f"{self._settings.console_topic}.{self._settings.console_host}"

    @exposed
    def get_network_topic(self, context: RequestContext) -> str:
        """Where 2011.2's callers expect this host's network service."""
        return f"{self._settings.network_topic}.{self._settings.network_host}"

    @exposed
    def get_console_pool_info(self, context: RequestContext, console_type: str) -> dict[str, str]:
        """address, username and password for a console proxy."""
        return console.pool_info(self._host.driver, console_type)

    # -- locks, filters, resources ------------------------------------------------------------------------------------

    @exposed
    def lock_instance(self, context: RequestContext, instance_id: int) -> None:
        """Refuse everybody but administrators from now on."""
        self._host.set_locked(instance_id, locked=True)

    @exposed
    def unlock_instance(self, context: RequestContext, instance_id: int) -> None:
        """Let its project act on it again."""
        self._host.set_locked(instance_id, locked=False)

    @exposed
    def get_lock(self, context: RequestContext, instance_id: int) -> bool:
        """True if it is locked."""
        return self._host.is_locked(instance_id)

    @exposed
    def refresh_security_group_rules(self, context: RequestContext, security_group_id: int) -> None:
        """The rules of a group changed, or which instances are in it."""
        self._host.filters.rules_changed(security_group_id)

    @exposed
    def refresh_security_group_members(self, context: RequestContext, security_group_id: int) -> None:
        """The members of a group that rules follow changed."""
        self._host.filters.members_changed(security_group_id)

    @exposed
    def refresh_provider_fw_rules(self, context: RequestContext) -> None:
        """The provider's deny rules changed."""
        self._host.filters.provider_rules_changed()

    @exposed
    def update_available_resource(self, context: RequestContext) -> None:
        """Write what this host has and uses."""
        self._host.report_resources()

    @exposed
    def audit_host(self, context: RequestContext, repair: bool = False) -> list[dict[str, Any]]:
        """Guests and files that no record explains, and missing files; repair: remove those of deleted guests."""
        return auditing.audit_host(self._host, repair=repair)

    def _leg(
        self,
        context: RequestContext,
        instance_id: int,
        task: Task,
        step: str,
        action_id: int | None,
        migration_id: int,
    ) -> Any:
        """Claim a later leg of an order that began elsewhere; one that came without an order is refused."""
        order = self._host.order(action_id, step)
        return self._tasks.claim(context, instance_id, task, order.id, {"migration_id": migration_id}, step=step)
