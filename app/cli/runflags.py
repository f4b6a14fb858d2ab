"""The flags of `run` and `create`, named as Docker's."""

from __future__ import annotations

from app.cli.flags import Flag, Parser

_PROCESS = (
    Flag("interactive", short="i", about="keep the input open"),
    Flag("tty", short="t", about="give it a terminal"),
    Flag("attach", "list", short="a", about="connect only to these: stdin, stdout, stderr"),
    Flag("env", "list", short="e", about="a variable: NAME=VALUE, or NAME as it is here"),
    Flag("env-file", "list", about="a file of variables, one a line"),
    Flag("workdir", "text", short="w", about="the directory that the program starts in"),
    Flag("user", "text", short="u", about="the user: NAME|UID[:GROUP|GID]"),
    Flag("group-add", "list", about="a further group"),
    Flag("entrypoint", "text", about="in place of the image's entrypoint"),
    Flag("init", about="a small init that forwards signals and reaps processes"),
    Flag("stop-signal", "text", about="the signal that stops it"),
    Flag("stop-timeout", "number", about="seconds from that signal to SIGKILL"),
    Flag("restart", "text", about="no, always, unless-stopped or on-failure[:TIMES]", default="no"),
    Flag("rm", about="remove it, and its anonymous volumes, when it has ended"),
    Flag("cidfile", "text", about="write the container's ID into this file"),
    Flag("name", "text", about="its name"),
    Flag("label", "list", short="l", about="a label: NAME=VALUE"),
    Flag("label-file", "list", about="a file of labels, one a line"),
    Flag("annotation", "list", about="an annotation of the OCI bundle: NAME=VALUE"),
)
_NETWORK = (
    Flag("publish", "list", short="p", about="publish a port: [ADDRESS:][HOST:]CONTAINER[/PROTOCOL]"),
    Flag("publish-all", short="P", about="publish all exposed ports, on free ports of the host"),
    Flag("expose", "list", about="say that a port is served"),
    Flag("network", "list", about="a network, or none, host, container:NAME; more of it: name=N,alias=A,ip=...",
         also=("net",)),
    Flag("network-alias", "list", about="a further name on the network", also=("net-alias",)),
    Flag("ip", "text", about="its address"), Flag("ip6", "text", about="its IPv6 address"),
    Flag("link-local-ip", "list", about="a link-local address"),
    Flag("mac-address", "text", about="its hardware address"),
    Flag("link", "list", about="another container's name, and an alias for it: NAME[:ALIAS]"),
    Flag("hostname", "text", short="h", about="its host name"), Flag("domainname", "text", about="its domain name"),
    Flag("add-host", "list", about="a line for /etc/hosts: NAME:ADDRESS (or host-gateway)"),
    Flag("dns", "list", about="a name server"), Flag("dns-search", "list", about="a search domain"),
    Flag("dns-option", "list", about="an option of resolv.conf", also=("dns-opt",)),
)
_FILES = (
    Flag("volume", "list", short="v", about="a directory of the host, or a volume: SOURCE:PATH[:ro]"),
    Flag("mount", "list", about="a mount in words: type=bind,source=...,target=..."),
    Flag("tmpfs", "list", about="a directory in memory: PATH[:OPTIONS]"),
    Flag("volumes-from", "list", about="the mounts of another container: NAME[:ro]"),
    Flag("volume-driver", "text", about="the driver of volumes that are made"),
    Flag("read-only", about="its root file system cannot be written to"),
    Flag("storage-opt", "list", about="an option of the storage: NAME=VALUE"),
    Flag("shm-size", "text", about="the size of /dev/shm"),
)
_LIMITS = (
    Flag("memory", "text", short="m", about="the most memory it may have"),
    Flag("memory-reservation", "text", about="what it is held to when memory is short"),
    Flag("memory-swap", "text", about="the most memory and swap together; -1 = no limit"),
    Flag("memory-swappiness", "number", about="0 to 100", default=-1),
    Flag("oom-kill-disable", about="do not kill its processes when it has no memory left"),
    Flag("oom-score-adj", "number", about="-1000 to 1000"),
    Flag("cpus", "text", about="how many CPUs, such as 1.5"),
    Flag("cpu-shares", "number", short="c", about="its weight among others"),
    Flag("cpu-period", "number", about="the scheduler's period, in µs"),
    Flag("cpu-quota", "number", about="how much of it, in µs"),
    Flag("cpu-rt-period", "number", about="the realtime period, in µs"),
    Flag("cpu-rt-runtime", "number", about="how much of it, in µs"),
    Flag("cpuset-cpus", "text", about="the CPUs it may run on: 0-3,5"),
    Flag("cpuset-mems", "text", about="the memory nodes it may use"),
    Flag("blkio-weight", "number", about="its block I/O weight, 10 to 1000"),
    Flag("blkio-weight-device", "list", about="the same for one device: PATH:WEIGHT"),
    Flag("device-read-bps", "list", about="bytes a second read from a device: PATH:RATE"),
    Flag("device-write-bps", "list", about="bytes a second written: PATH:RATE"),
    Flag("device-read-iops", "list", about="reads a second: PATH:RATE"),
    Flag("device-write-iops", "list", about="writes a second: PATH:RATE"),
    Flag("pids-limit", "number", about="the most processes; -1 = no limit"),
    Flag("ulimit", "list", about="a resource limit: NAME=SOFT[:HARD]"),
    Flag("cgroup-parent", "text", about="the cgroup above its own"),
)
_RIGHTS = (
    Flag("cap-add", "list", about="a capability more"), Flag("cap-drop", "list", about="a capability less"),
    Flag("privileged", about="all capabilities, all devices"),
    Flag("security-opt", "list", about="seccomp=FILE, no-new-privileges, systempaths=unconfined, ..."),
    Flag("device", "list", about="a device: HOST[:CONTAINER[:rwm]]"),
    Flag("device-cgroup-rule", "list", about="a device rule: c 10:200 rwm"),
    Flag("gpus", "text", about="not supported"),
    Flag("sysctl", "list", about="a kernel setting of its namespaces: NAME=VALUE"),
    Flag("pid", "text", about="whose processes it sees: host, container:NAME"),
    Flag("ipc", "text", about="private, shareable, host, none or container:NAME"),
    Flag("uts", "text", about="host: the host's name"), Flag("userns", "text", about="auto, keep-id or host"),
    Flag("cgroupns", "text", about="host or private"),
    Flag("runtime", "text", about="the OCI runtime"),
    Flag("isolation", "text", about="default, the only one on Linux"),
    Flag("log-driver", "text", about="who keeps the log"), Flag("log-opt", "list", about="an option of it: NAME=VALUE"),
)
_HEALTH = (
    Flag("health-cmd", "text", about="a command that tells whether it is well"),
    Flag("health-interval", "text", about="time between two checks"),
    Flag("health-timeout", "text", about="the most time for one"),
    Flag("health-retries", "number", about="failures in a row until it is unhealthy"),
    Flag("health-start-period", "text", about="time to come up, in which failures do not count"),
    Flag("health-start-interval", "text", about="time between two checks meanwhile"),
    Flag("no-healthcheck", about="do without the image's check"),
)
_IMAGE = (
    Flag("pull", "text", about="always, missing or never", default="missing"),
    Flag("quiet", short="q", about="say nothing of the pull"),
    Flag("platform", "text", about="OS/ARCHITECTURE of the image"),
    Flag("disable-content-trust", about="images are not checked for signatures", default=True),
)
_ALL = (*_PROCESS, *_NETWORK, *_FILES, *_LIMITS, *_RIGHTS, *_HEALTH, *_IMAGE)

RUN = Parser(
    "run [FLAGS] IMAGE [COMMAND [ARGUMENT...]]", "Create a container from an image and start it.",
    Flag("detach", short="d", about="leave it running and print its ID"),
    Flag("sig-proxy", about="pass signals on to it", default=True),
    Flag("detach-keys", "text", about="leave it running on these keys (ctrl-p,ctrl-q)"),
    *_ALL, intermixed=False, least=1)
CREATE = Parser("create [FLAGS] IMAGE [COMMAND [ARGUMENT...]]", "Create a container, without starting it.", *_ALL,
                intermixed=False, least=1)
