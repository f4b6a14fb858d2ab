"""Carries a :class:`backend.runtime.plan.RootPlan` out, in the child, inside its own mount namespace.

Rules, each paid for by somebody else's CVE: a target inside the root is opened once with ``openat2`` and
``RESOLVE_IN_ROOT`` and mounted on by that descriptor; nothing is decided on a path and then done on it again; what
covers /proc is checked to be procfs, /dev/null to be the real device; the host's tree is detached at the end. Until
the pivot ``/proc/self/fd/N`` is the host's procfs, so that those names can be trusted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backend.runtime import syscalls as sc
from backend.runtime.copyup import copy_tree
from backend.runtime.plan import DEV_LINKS, BindMount, CgroupMount, Device, FsMount, Overlay, RootPlan

IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
# What may be mounted over inside /proc (as lxcfs does); anything else there would fool the runtime or the program.
_PROC_TARGETS = frozenset(
    "/proc/" + name
    for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
                 "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled")
)  # fmt: skip


class MountFailed(Exception):
    """A step of the plan failed; *what* names it for people."""

    def __init__(self, what: str, error: OSError) -> None:
        super().__init__(f"{what}: {error.strerror}")
        self.errno = error.errno


def by_fd(fd: int) -> str:
    """A name for the object of *fd* that mount(2) takes."""
    return f"/proc/self/fd/{fd}"


def _open(root: int, path: str, resolve: int = IN_ROOT) -> int:
    return sc.openat2(root, path.lstrip("/") or ".", os.O_PATH, resolve=resolve)


def make_directory(root: int, path: str) -> int:
    """Opens *path* below *root* as an ``O_PATH`` descriptor, with missing directories made on the way."""
    return _make(root, path, _new_directory, 0)


def make_file(root: int, path: str) -> int:
    """Like :func:`make_directory` for an empty regular file, as the target of a file's bind mount."""
    return _make(root, path, _new_file, 0)


def _new_directory(name: str, above: int) -> None:
    os.mkdir(name, 0o755, dir_fd=above)


def _new_file(name: str, above: int) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=above))


def _make(root: int, path: str, new: Callable[[str, int], None], depth: int) -> int:
    try:
        return _open(root, path)
    except FileNotFoundError:
        pass
    parent, _, name = path.strip("/").rpartition("/")
    above = _make(root, parent, _new_directory, depth) if parent else os.dup(root)
    try:
        if name in ("", ".", "..") or depth > 20:
            raise OSError(errno.ELOOP if depth else errno.ENOENT, "path cannot be made", path)
        try:
            new(name, above)
        except FileExistsError:
            # A link to what is not there (/etc/resolv.conf of many images): its target is made, inside the root.
            link = os.readlink(name, dir_fd=above)
            base = "" if link.startswith("/") else os.readlink(by_fd(above)).removeprefix(os.readlink(by_fd(root)))
            return _make(root, os.path.normpath(f"/{base}/{link}"), new, depth + 1)
        resolve = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS
        return sc.openat2(above, name, os.O_PATH | os.O_NOFOLLOW, resolve=resolve)
    finally:
        os.close(above)


# --- the root -------------------------------------------------------------------------------------------------------
def _overlay_by_fsconfig(overlay: Overlay) -> int:
    context = sc.fsopen("overlay")
    try:
        sc.fsconfig_string(context, "source", "overlay")
        for lower in overlay.lower:
            sc.fsconfig_string(context, "lowerdir+", lower)
        sc.fsconfig_string(context, "upperdir", overlay.upper)
        sc.fsconfig_string(context, "workdir", overlay.work)
        # What the upper directory holds must be whole in itself: it becomes a layer when the container is committed.
        sc.fsconfig_string(context, "redirect_dir", "nofollow")
        sc.fsconfig_string(context, "metacopy", "off")
        if overlay.volatile:
            _forget_volatile(overlay.work)
            sc.fsconfig_flag(context, "volatile")
        sc.fsconfig_create(context)
        return sc.fsmount(context)
    finally:
        os.close(context)


def _forget_volatile(work: str) -> None:
    """The mark of an earlier volatile mount, with which the kernel says that a crash may have torn what it holds. Those
    who ask for one have no use for what was there when the machine went down."""
    mark = f"{work}/work/incompat/volatile"
    for remove, path in ((os.unlink, f"{mark}/dirty"), (os.rmdir, mark), (os.rmdir, os.path.dirname(mark))):
        try:
            remove(path)
        except FileNotFoundError:
            continue


def _overlay_by_options(overlay: Overlay, target: str) -> None:
    """Kernels before 6.5 have no ``lowerdir+``; options are one page at most, so long paths are made relative."""
    if any(":" in path or "," in path for path in (*overlay.lower, overlay.upper, overlay.work)):
        raise OSError(errno.EINVAL, "this kernel's overlay takes no path with a colon or comma")
    common = os.path.commonpath(overlay.lower)
    lower = ":".join(os.path.relpath(path, common) for path in overlay.lower)
    here = os.getcwd()
    os.chdir(common)
    try:
        sc.mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={overlay.upper},workdir={overlay.work}")
    finally:
        os.chdir(here)


def overlay_plan(path: str, overlay: Overlay) -> RootPlan:
    """A root that is *overlay* alone, on *path*."""
    return RootPlan(path, overlay, False, sc.MS_PRIVATE, (), (), (), (), (), False)


@contextmanager
def _shifted(overlay: Overlay, userns: int) -> Iterator[None]:
    """While this lasts, layers and the directory with upper and work are covered by themselves, seen with the
    container's IDs: overlay takes hold of what it finds at the paths. Only in this mount namespace."""
    covered: list[str] = []
    try:
        for path in dict.fromkeys((*overlay.lower, os.path.commonpath((overlay.upper, overlay.work)))):
            point = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            tree = sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE)
            try:
                _idmap(tree, userns, path)
                sc.move_mount(tree, point)
                covered.append(path)
            finally:
                os.close(tree)
                os.close(point)
        yield
    finally:
        for path in reversed(covered):
            sc.umount2(path, sc.MNT_DETACH)


def _idmap(tree: int, userns: int, path: str, *, recursive: bool = False) -> None:
    try:
        sc.mount_setattr(tree, userns=userns, recursive=recursive)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = f"the file system of {path} cannot be mounted with shifted IDs on this kernel; use --userns=host"
        raise OSError(errno.EINVAL, text) from error


def mount_root(plan: RootPlan, userns: int = -1) -> int:
    """Mounts the root and returns it as a directory descriptor on the new mount.

    *userns*: its user namespace, if it has one of its own.
    """
    sc.mount(None, "/", None, sc.MS_REC | plan.propagation)
    if plan.propagation == sc.MS_SHARED:
        _detach_from_host(plan.path)
    point = os.open(plan.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if userns >= 0 and plan.overlay is not None:
            with _shifted(plan.overlay, userns):
                _mount_on(plan, point, userns)
        else:
            _mount_on(plan, point, userns)
    except OSError as error:
        raise MountFailed(f"mount root file system on {plan.path}", error) from error
    finally:
        os.close(point)
    return os.open(plan.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _mount_on(plan: RootPlan, point: int, userns: int) -> None:
    if plan.overlay is None:
        tree = sc.open_tree(point, "", sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH)
        try:
            if userns >= 0:
                _idmap(tree, userns, plan.path)
            sc.move_mount(tree, point)
        finally:
            os.close(tree)
        return
    try:
        tree = _overlay_by_fsconfig(plan.overlay)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        _overlay_by_options(plan.overlay, by_fd(point))
        return
    try:
        sc.move_mount(tree, point)
    finally:
        os.close(tree)


def _detach_from_host(path: str) -> None:
    """With a shared root the mount that holds *path* must not tell the host of ours; pivot_root asks for it too."""
    while True:
        try:
            sc.mount(None, path, None, sc.MS_PRIVATE)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or path == "/":  # EINVAL: not a mount point, so look above
                raise
        path = os.path.dirname(path)


# --- mounts ---------------------------------------------------------------------------------------------------------
def _allow_target(target: int, root_path: str, kind: str) -> None:
    """Refuses a mount that resolves into /proc or /sys unless it is one of the harmless ones."""
    name = os.readlink(by_fd(target))
    inside = name.removeprefix(root_path)
    if inside == "/proc" and kind not in ("proc", "bind"):
        raise OSError(errno.EPERM, "only procfs may be mounted on /proc")
    if inside.startswith("/proc/") and inside not in _PROC_TARGETS:
        raise OSError(errno.EPERM, f"{inside} is inside /proc and may not be mounted on")


def fresh_mount(root: int, root_path: str, op: FsMount) -> None:
    """A new file system; proc and sysfs never through a link of the image."""
    data, beneath = op.data, -1
    try:
        beneath = sc.openat2(root, op.target.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=IN_ROOT)
        if op.kind == "tmpfs" and "mode=" not in data:
            # A tmpfs over a directory keeps that directory's mode, as Docker users expect of /run and /tmp.
            data = f"{data},mode={stat.S_IMODE(os.fstat(beneath).st_mode):o}".lstrip(",")
    except FileNotFoundError:
        pass  # it is made below, with the file system's own mode
    target = make_directory(root, op.target)
    try:
        if op.kind in ("proc", "sysfs"):
            os.close(_open(root, op.target, IN_ROOT | sc.RESOLVE_NO_SYMLINKS))
        _allow_target(target, root_path, op.kind)
        sc.mount(op.source, by_fd(target), op.kind, op.flags & ~(sc.MS_RDONLY if op.copy_up else 0), data or None)
        if op.copy_up and beneath >= 0:
            _fill(root, op, beneath)
    finally:
        os.close(target)
        if beneath >= 0:
            os.close(beneath)


def give_away(root: int, path: str, uid: int, gid: int) -> None:
    """Makes the top of a file system just mounted belong to somebody; some always begin as the host's root's."""
    fd = _open(root, path)
    try:
        os.chown(by_fd(fd), uid, gid)
    finally:
        os.close(fd)


def _fill(root: int, op: FsMount, beneath: int) -> None:
    top = sc.openat2(root, op.target.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY, resolve=IN_ROOT)
    try:
        copy_tree(beneath, top)
        seen = os.fstat(beneath)
        if "uid=" not in op.data and "gid=" not in op.data:
            os.fchown(top, seen.st_uid, seen.st_gid)
        if op.flags & sc.MS_RDONLY:
            sc.mount_setattr(top, add=sc.MOUNT_ATTR_RDONLY)
    finally:
        os.close(top)


_LOCKABLE = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC | sc.MOUNT_ATTR_RDONLY


def bind_mount(root: int, root_path: str, op: BindMount, userns: int = -1) -> None:
    """A clone of the source's tree, its attributes set before it becomes visible anywhere."""
    tree = sc.open_tree(sc.AT_FDCWD, op.source, sc.OPEN_TREE_CLONE | (sc.AT_RECURSIVE if op.recursive else 0))
    try:
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        if op.idmap and userns >= 0:
            _idmap(tree, userns, op.source, recursive=op.recursive)
        if op.propagation:
            sc.mount_setattr(tree, propagation=op.propagation, recursive=op.propagation_recursive)
        if op.add or op.remove:
            sc.mount_setattr(tree, add=op.add, remove=op.remove, recursive=op.recursive_attributes)
        target = make_directory(root, op.target) if is_directory else make_file(root, op.target)
        try:
            _allow_target(target, root_path, "bind")
            sc.move_mount(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def cgroup_mount(
    root: int,
    op: CgroupMount,
    controllers: tuple[tuple[str, str], ...],
    *,
    own_namespace: bool,
    paths: dict[str, str],
) -> None:
    """cgroup v2: one mount. v1: a tmpfs with one directory a controller, as every distribution lays it out.

    *controllers*: (directory below /sys/fs/cgroup, options) as the host mounts them; an empty directory name is v2.
    Without a cgroup namespace of its own the container sees its own directories (*paths*), bound read-only.
    """
    flags = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    ro = sc.MS_RDONLY if op.read_only else 0
    target = make_directory(root, op.target)
    try:
        if controllers and not controllers[0][0]:
            path = None if own_namespace else paths.get("")
            _one_cgroup(target, "cgroup2", "", own_namespace=own_namespace, path=path, flags=flags | ro)
            return
        sc.mount("tmpfs", by_fd(target), "tmpfs", flags, "mode=755,size=64k")
    finally:
        os.close(target)
    base = _open(root, op.target)
    try:
        for name, options in controllers:
            os.mkdir(name, 0o755, dir_fd=base)
            fd = sc.openat2(base, name, os.O_PATH | os.O_DIRECTORY, resolve=sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS)
            try:
                kind = "cgroup2" if options == "cgroup2" else "cgroup"
                data = "" if kind == "cgroup2" else options
                _one_cgroup(fd, kind, data, own_namespace=own_namespace, path=paths.get(name), flags=flags | ro)
            finally:
                os.close(fd)
            for alias in options.split(",") if "," in options and "=" not in options else ():
                if alias != name:
                    os.symlink(name, alias, dir_fd=base)
        if ro:
            sc.mount(None, by_fd(base), None, sc.MS_REMOUNT | sc.MS_BIND | flags | ro)
    finally:
        os.close(base)


def _one_cgroup(target: int, kind: str, options: str, *, own_namespace: bool, path: str | None, flags: int) -> None:
    if own_namespace:
        sc.mount("cgroup", by_fd(target), kind, flags, options or None)
        return
    if path is None:
        return
    # Attributes are set on the clone: a remount by descriptor would mean the directory beneath the mount.
    tree = sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE)
    try:
        harmless = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC
        sc.mount_setattr(tree, add=harmless | (sc.MOUNT_ATTR_RDONLY if flags & sc.MS_RDONLY else 0), recursive=True)
        sc.mount_setattr(tree, propagation=sc.MS_PRIVATE, recursive=True)
        sc.move_mount(tree, target)
    finally:
        os.close(tree)


# --- devices --------------------------------------------------------------------------------------------------------
def make_device(root: int, device: Device) -> None:
    """Makes a node; where the file system or a user namespace forbids it, binds the host's node instead."""
    parent, _, name = device.path.rpartition("/")
    above = make_directory(root, parent or "/")
    try:
        try:
            os.mknod(name, device.kind | device.mode, os.makedev(device.major, device.minor), dir_fd=above)
        except FileExistsError:
            seen = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_IFMT(seen.st_mode) != device.kind or seen.st_rdev != os.makedev(device.major, device.minor):
                raise
            return
        os.chmod(name, device.mode, dir_fd=above)  # mknod's mode went through the umask
        if device.uid or device.gid:
            os.chown(name, device.uid, device.gid, dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)


def make_dev_links(root: int) -> None:
    """The links that programs expect in /dev; one that exists stays."""
    for path, target in DEV_LINKS:
        above = make_directory(root, "/dev")
        try:
            os.symlink(target, path.rpartition("/")[2], dir_fd=above)
        except FileExistsError:
            if path == "/dev/ptmx":
                os.unlink("ptmx", dir_fd=above)  # a node of the host's devpts would be the wrong instance
                os.symlink(target, "ptmx", dir_fd=above)
        finally:
            os.close(above)


def null_device() -> int:
    """A descriptor of /dev/null that is verified to be it (CVE-2025-31133: an image's link must not be bound)."""
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    seen = os.fstat(fd)
    if not stat.S_ISCHR(seen.st_mode) or seen.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise OSError(errno.ENODEV, "/dev/null is not the null device")
    return fd


# --- masks ----------------------------------------------------------------------------------------------------------
def _verified(root: int, path: str) -> int | None:
    """Opens a path that is to be covered; one below /proc or /sys must really be there."""
    try:
        fd = _open(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    wanted = sc.PROC_SUPER_MAGIC if path.startswith("/proc/") else sc.SYSFS_MAGIC if path.startswith("/sys/") else None
    if wanted is not None and sc.fstatfs_type(fd) not in (
        wanted,
        sc.CGROUP_SUPER_MAGIC,
        sc.CGROUP2_SUPER_MAGIC,
        sc.TMPFS_MAGIC,
    ):
        os.close(fd)
        raise OSError(errno.EPERM, f"{path} is not what the kernel put there")
    return fd


def mask_paths(root: int, paths: tuple[str, ...]) -> None:
    """Hides files under /dev/null and directories under an empty, read-only tmpfs."""
    null = null_device()
    try:
        for path in paths:
            fd = _verified(root, path)
            if fd is None:
                continue
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    sc.mount(
                        "tmpfs",
                        by_fd(fd),
                        "tmpfs",
                        sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC,
                        "size=0k,nr_inodes=1",
                    )
                else:
                    sc.mount(by_fd(null), by_fd(fd), None, sc.MS_BIND)
            finally:
                os.close(fd)
    finally:
        os.close(null)


def readonly_paths(root: int, paths: tuple[str, ...]) -> None:
    """Covers each path with a read-only clone of itself."""
    for path in paths:
        fd = _verified(root, path)
        if fd is None:
            continue
        try:
            tree = sc.open_tree(fd, "", sc.OPEN_TREE_CLONE | sc.AT_RECURSIVE | sc.AT_EMPTY_PATH)
            try:
                sc.mount_setattr(tree, add=_LOCKABLE, recursive=True)
                sc.move_mount(tree, fd)
            finally:
                os.close(tree)
        finally:
            os.close(fd)


def write_sysctls(root: int, sysctls: tuple[tuple[str, str], ...]) -> None:
    """Writes each through a descriptor that is checked to be procfs (CVE-2025-52881: redirected writes)."""
    for key, value in sysctls:
        try:
            fd = sc.openat2(root, "proc/sys/" + key, os.O_WRONLY, resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
            try:
                if sc.fstatfs_type(fd) != sc.PROC_SUPER_MAGIC:
                    raise OSError(errno.EPERM, "not procfs")
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            name = key.translate(str.maketrans("./", "/."))
            raise OSError(error.errno, error.strerror, f'write sysctl {name} = "{value}"') from error


# --- console --------------------------------------------------------------------------------------------------------
def open_terminal(root: int) -> int:
    """A new terminal (its master) of the devpts instance inside *root*; the path is verified, not trusted."""
    fd = sc.openat2(root, "dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
    seen = os.fstat(fd)
    if (
        not stat.S_ISCHR(seen.st_mode)
        or seen.st_rdev != os.makedev(5, 2)
        or sc.fstatfs_type(fd) != sc.DEVPTS_SUPER_MAGIC
    ):
        os.close(fd)
        raise OSError(errno.EPERM, "/dev/pts/ptmx of the container is not a terminal multiplexer")
    return fd


def bind_console(root: int, slave: int) -> None:
    """The container's terminal at /dev/console, by descriptors on both sides."""
    target = make_file(root, "/dev/console")
    try:
        sc.mount(by_fd(slave), by_fd(target), None, sc.MS_BIND)
    finally:
        os.close(target)


# --- the end --------------------------------------------------------------------------------------------------------
def pivot(root: int) -> None:
    """Makes *root* the root and lets the host's tree go; both sit on ``.``, so the old one needs no directory."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(root)
        sc.pivot_root(".", ".")
        os.fchdir(old)
        sc.mount(None, ".", None, sc.MS_SLAVE | sc.MS_REC)  # an unmount must not reach the host
        sc.umount2(".", sc.MNT_DETACH)
    finally:
        os.close(old)
    os.chdir("/")


def read_only_root() -> None:
    """Makes the root mount itself read-only; other mounts keep what they have."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sc.mount_setattr(fd, add=sc.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fd)
