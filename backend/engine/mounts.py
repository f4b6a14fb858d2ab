"""What a container mounts: -v, --mount, --tmpfs, --volumes-from and the image's VOLUMEs become mount records. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from backend.engine.record import MountRecord
from backend.engine.spec import PROPAGATIONS, tmpfs_options
from backend.errors import InvalidArgument
from backend.spec import api

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
#: What may stand behind the second colon of a -v, one word of each kind at most. Consistency means nothing on Linux.
_MODES = ({"ro", "rw"}, {"z", "Z"}, {"nocopy"}, {"cached", "consistent", "delegated"}, set(PROPAGATIONS),
          {"idmap"})
_TMPFS_WORDS = frozenset({"exec", "noexec"})


def check_volume_name(name: str) -> None:
    """Raise :class:`InvalidArgument` for a name that no volume may have."""
    if len(name) == 1:
        raise InvalidArgument(f"create {name}: volume name is too short, names should be at least two alphanumeric "
                              "characters")
    if not _VOLUME_NAME.fullmatch(name):
        raise InvalidArgument(f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                              '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use '
                              'absolute path')


def _clean(path: str) -> str:
    made = posixpath.normpath(path)
    return made[1:] if made.startswith("//") else made


def _target(path: str, whole: str, kind: str = "volume") -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{whole}': invalid mount config for type \"{kind}\": "
                              f"invalid mount path: '{path}' mount path must be absolute")
    made = _clean(path)
    if made == "/":
        raise InvalidArgument(f"invalid volume specification: '{whole}': invalid mount config for type \"{kind}\": "
                              "invalid specification: destination can't be '/'")
    if "\0" in path:
        raise InvalidArgument(f"invalid volume specification: '{whole}'")
    return made


def _is_mode(text: str) -> bool:
    words = text.split(",")
    return all(any(word in kind for kind in _MODES) for word in words) and all(
        sum(word in kind for word in words) <= 1 for kind in _MODES)


def parse_bind(text: str) -> MountRecord:
    """One `-v`: SOURCE:TARGET[:OPTIONS], or a TARGET alone (an anonymous volume)."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts[:2]) or (len(parts) == 2 and _is_mode(parts[1])):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountRecord(kind="volume", target=_target(parts[0], text), anonymous=True)
    mode = parts[2] if len(parts) == 3 else ""
    if mode and not _is_mode(mode):
        raise InvalidArgument(f"invalid mode: {mode}")
    source = parts[0]
    target = _target(parts[1], text, "bind" if source.startswith("/") else "volume")
    options = mode.split(",")
    propagation = next((one for one in options if one in PROPAGATIONS), "")
    read_only = "ro" in options
    if source.startswith("/"):
        if "nocopy" in options:
            raise InvalidArgument(f"invalid volume specification: '{text}': invalid mount config for type \"bind\": "
                                  "field VolumeOptions must not be specified")
        return MountRecord(kind="bind", target=target, source=_clean(source), mode=mode, read_only=read_only,
                           propagation=propagation or "rprivate", create_source=True)
    if propagation:
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mount config for type \"volume\": "
                              "field BindOptions must not be specified")
    check_volume_name(source)
    return MountRecord(kind="volume", target=target, volume=source, mode=mode or "z",
                       read_only=read_only, copy="nocopy" not in options)


def parse_mount(one: api.Mount) -> MountRecord:
    """One `--mount`."""
    kind = one.type
    if not one.target:
        raise _bad(kind, "field Target must not be empty")
    if not one.target.startswith("/"):
        raise _bad(kind, f"invalid mount path: '{one.target}' mount path must be absolute")
    target = _clean(one.target)
    if target == "/":
        raise _bad(kind, "invalid specification: destination can't be '/'")
    makers: dict[str, Callable[[api.Mount, str], MountRecord]] = {
        "bind": _bind, "volume": _volume, "tmpfs": _tmpfs, "image": _image}
    if kind not in makers:
        raise _bad(kind, "mount type unknown")
    _check_options(one)
    return makers[kind](one, target)


def _check_options(one: api.Mount) -> None:
    """Options of another type of mount are a mistake."""
    given = {"bind": one.bind_options, "volume": one.volume_options, "tmpfs": one.tmpfs_options,
             "image": one.image_options}
    for kind, options in given.items():
        if options is not None and kind != one.type:
            raise InvalidArgument(f'{kind.capitalize()}Options must not be specified on mount type "{one.type}"')


def _bad(kind: str, why: str) -> InvalidArgument:
    return InvalidArgument(f'invalid mount config for type "{kind}": {why}')


def _bind(one: api.Mount, target: str) -> MountRecord:
    if not one.source:
        raise _bad("bind", "field Source must not be empty")
    if not one.source.startswith("/"):
        raise _bad("bind", f"invalid mount path: '{one.source}' mount path must be absolute")
    options = one.bind_options or api.BindOptions()
    if options.read_only_non_recursive and options.read_only_force_recursive:
        raise _bad("bind", "ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other")
    if (options.read_only_non_recursive or options.read_only_force_recursive) and not one.read_only:
        raise _bad("bind", "ReadOnlyNonRecursive and ReadOnlyForceRecursive need ReadOnly")
    if options.read_only_force_recursive and (options.non_recursive or options.propagation not in ("", "rprivate")):
        raise _bad("bind", "ReadOnlyForceRecursive needs a recursive mount with the propagation rprivate")
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise _bad("bind", f"invalid propagation mode: {options.propagation}")
    force = "force" if options.read_only_force_recursive else ""
    return MountRecord(kind="bind", target=target, source=_clean(one.source), read_only=one.read_only,
                       propagation=options.propagation or "rprivate", create_source=options.create_mountpoint,
                       recursive=not options.non_recursive,
                       recursive_read_only="never" if options.read_only_non_recursive else force)


def _volume(one: api.Mount, target: str) -> MountRecord:
    options = one.volume_options or api.VolumeOptions()
    config = options.driver_config or api.DriverConfig()
    if options.subpath and not one.source:
        raise _bad("volume", "must not set Subpath when using anonymous volumes")
    if options.subpath and not _is_inside(options.subpath):
        raise _bad("volume", "subpath must be a relative path within the volume")
    if one.source:
        check_volume_name(one.source)
    return MountRecord(kind="volume", target=target, volume=one.source, driver=config.name,
                       driver_options=config.options or {}, labels=options.labels or {},
                       mode="z", read_only=one.read_only, anonymous=not one.source,
                       copy=not options.no_copy and not options.subpath, subpath=options.subpath)


def _is_inside(path: str) -> bool:
    """A relative path that never goes above where it begins."""
    return not path.startswith("/") and "\0" not in path and posixpath.normpath(path).split("/")[0] != ".."


def _image(one: api.Mount, target: str) -> MountRecord:
    if not one.source:
        raise _bad("image", "field Source must not be empty")
    options = one.image_options or api.ImageOptions()
    if options.subpath and not _is_inside(options.subpath):
        raise _bad("image", "subpath must be a relative path within the volume")
    return MountRecord(kind="image", target=target, source=one.source, read_only=True, subpath=options.subpath)


def _tmpfs(one: api.Mount, target: str) -> MountRecord:
    if one.source:
        raise _bad("tmpfs", "field Source must not be specified")
    options = one.tmpfs_options or api.TmpfsOptions()
    if options.size_bytes < 0 or options.mode < 0:
        raise _bad("tmpfs", "size and mode must not be negative")
    for pair in options.options:
        if not 1 <= len(pair) <= 2:
            raise _bad("tmpfs", "invalid option array length")
        if pair[0] not in _TMPFS_WORDS:
            raise _bad("tmpfs", f"invalid option: {pair[0]}")
    given = [*("=".join(pair) for pair in options.options)]
    if options.size_bytes:
        given.append(f"size={options.size_bytes}")
    if options.mode:
        given.append(f"mode={options.mode:o}")
    if one.read_only:
        given.append("ro")
    return MountRecord(kind="tmpfs", target=target, options=tmpfs_options(",".join(given)), read_only=one.read_only)


def collect(config: api.ContainerConfig, host: api.HostConfig, image_volumes: Sequence[str],
            others: Callable[[str], Sequence[MountRecord]]) -> tuple[MountRecord, ...]:
    """All mounts of a new container. *others* gives the mounts of another container (for VolumesFrom).

    Raises :class:`InvalidArgument`; the text about two mounts at one place is matched by clients.
    """
    found: dict[str, MountRecord] = {}
    for text in host.volumes_from or ():
        for one in _volumes_from(text, others):
            found[one.target] = one
    inherited = set(found)
    asked = [_driven(parse_bind(text), host) for text in host.binds or ()] + [parse_mount(one) for one in host.mounts]
    if any(_clean(path) == "/" for path in host.tmpfs):
        raise InvalidArgument("invalid specification: destination can't be '/'")
    asked += [MountRecord(kind="tmpfs", target=_target(path, path), options=tmpfs_options(options), anonymous=True)
              for path, options in host.tmpfs.items()]
    for one in asked:
        if one.target in found and one.target not in inherited:
            raise InvalidArgument(f"Duplicate mount point: {one.target}")
        inherited.discard(one.target)
        found[one.target] = one
    for text in (*config.volumes, *image_volumes):
        one = _driven(parse_bind(text), host)
        found.setdefault(one.target, one)
    return tuple(found.values())


def _driven(one: MountRecord, host: api.HostConfig) -> MountRecord:
    """With the driver that `--volume-driver` names for volumes of the `-v` form."""
    return msgspec.structs.replace(one, driver=host.volume_driver) if one.kind == "volume" else one


def _volumes_from(text: str, others: Callable[[str], Sequence[MountRecord]]) -> list[MountRecord]:
    name, _, mode = text.partition(":")
    if bad := [one for one in mode.split(",") if one and one not in ("ro", "rw", "z", "Z")]:
        raise InvalidArgument(f"invalid mode: {bad[0]}")
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    if not name or mode not in ("", "ro", "rw", "z", "Z", "ro,z", "rw,z"):
        raise InvalidArgument(f"invalid volumes-from specification: '{text}'")
    read_only = mode.startswith("ro")
    return [msgspec.structs.replace(one, read_only=one.read_only or read_only, mode="")
            for one in others(name) if one.kind != "tmpfs"]


def points(mounts: Sequence[MountRecord], volume_path: Mapping[str, str]) -> list[api.MountPoint]:
    """The mounts as list and inspect show them. A `--tmpfs` is part of HostConfig only, as Docker has it."""
    made = []
    for one in mounts:
        if one.kind == "volume":
            made.append(api.MountPoint(type="volume", name=one.volume, source=volume_path.get(one.volume, ""),
                                       destination=one.target, driver=one.driver or "local", mode=one.mode,
                                       rw=not one.read_only, propagation=""))
        elif one.kind == "bind":
            made.append(api.MountPoint(type="bind", source=one.source, destination=one.target, mode=one.mode,
                                       rw=not one.read_only, propagation=one.propagation))
        elif one.kind == "image":
            made.append(api.MountPoint(type="image", name=one.source, destination=one.target, rw=False))
        elif not one.anonymous:
            made.append(api.MountPoint(type="tmpfs", destination=one.target, rw=not one.read_only))
    return made
