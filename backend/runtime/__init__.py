"""The audited room: keeper, launch, init, rootfs, cgroups, seccomp, system calls. Standard library only."""
