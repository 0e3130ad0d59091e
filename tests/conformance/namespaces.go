package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

// Namespace types of config.json with their names in /proc/PID/ns and the flag that makes one.
var namespaceTypes = []struct {
	kind rspec.LinuxNamespaceType
	file string
	flag uintptr
}{
	{rspec.PIDNamespace, "pid", syscall.CLONE_NEWPID},
	{rspec.NetworkNamespace, "net", syscall.CLONE_NEWNET},
	{rspec.IPCNamespace, "ipc", syscall.CLONE_NEWIPC},
	{rspec.UTSNamespace, "uts", syscall.CLONE_NEWUTS},
	{rspec.MountNamespace, "mnt", syscall.CLONE_NEWNS},
	{rspec.CgroupNamespace, "cgroup", 0x02000000},
}

func (t *Test) namespaceOf(pid interface{}, file string) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, file))
	t.must(err, "read a namespace")
	return link
}

// A process of ours in a namespace of its own, to join.
func (t *Test) holder(flag uintptr) *exec.Cmd {
	command := exec.Command("/proc/self/exe", "pause")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag, Pdeathsig: syscall.SIGKILL}
	t.must(command.Start(), "start a process in a namespace")
	return command
}

func init() {
	register("linux_ns_nopath", func(t *Test) {
		c := t.pausing()
		c.Config.Linux.Namespaces = nil
		for _, kind := range namespaceTypes {
			c.Config.Linux.Namespaces = append(c.Config.Linux.Namespaces, rspec.LinuxNamespace{Type: kind.kind})
		}
		c.create()
		for _, kind := range namespaceTypes {
			if t.namespaceOf(c.state().Pid, kind.file) == t.namespaceOf("self", kind.file) {
				t.fail("the %s namespace is the host's", kind.kind)
			}
		}
	})
	register("linux_ns_itype", func(t *Test) {
		// What is not in the list is the host's.
		for _, kind := range namespaceTypes {
			if kind.kind == rspec.MountNamespace {
				continue // No runtime gives up that one.
			}
			c := t.pausing()
			var rest []rspec.LinuxNamespace
			for _, other := range namespaceTypes {
				if other.kind != kind.kind {
					rest = append(rest, rspec.LinuxNamespace{Type: other.kind})
				}
			}
			c.Config.Linux.Namespaces = rest
			if kind.kind == rspec.UTSNamespace {
				c.Config.Hostname = ""
			}
			if kind.kind == rspec.NetworkNamespace || kind.kind == rspec.PIDNamespace {
				c.bindInstead("/sys")
			}
			c.create()
			if t.namespaceOf(c.state().Pid, kind.file) != t.namespaceOf("self", kind.file) {
				t.fail("the %s namespace is not the host's", kind.kind)
			}
			c.ok("delete", "--force", c.ID)
		}
	})
	register("linux_ns_path", func(t *Test) {
		for _, kind := range namespaceTypes {
			if kind.kind == rspec.MountNamespace {
				continue // Its root would be the other's, too.
			}
			holder := t.holder(kind.flag)
			path := fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, kind.file)
			c := t.pausing()
			var list []rspec.LinuxNamespace
			for _, other := range namespaceTypes {
				one := rspec.LinuxNamespace{Type: other.kind}
				if other.kind == kind.kind {
					one.Path = path
				}
				list = append(list, one)
			}
			c.Config.Linux.Namespaces = list
			c.create()
			joined := t.namespaceOf(c.state().Pid, kind.file) == t.namespaceOf(holder.Process.Pid, kind.file)
			c.ok("delete", "--force", c.ID)
			holder.Process.Kill()
			holder.Wait()
			if !joined {
				t.fail("the %s namespace is not the one at %s", kind.kind, path)
			}
		}
	})
	register("linux_ns_path_type", func(t *Test) {
		// A path of another type is refused.
		for _, kind := range namespaceTypes {
			if kind.kind == rspec.MountNamespace {
				continue
			}
			c := t.pausing()
			wrong := "/proc/self/ns/mnt"
			var list []rspec.LinuxNamespace
			for _, other := range namespaceTypes {
				one := rspec.LinuxNamespace{Type: other.kind}
				if other.kind == kind.kind {
					one.Path = wrong
				}
				list = append(list, one)
			}
			c.Config.Linux.Namespaces = list
			c.save()
			c.refused("create", "--bundle", c.Bundle, c.ID)
			c.refused("state", c.ID)
		}
	})
	register("linux_uid_mappings", func(t *Test) { checkMappings(t) })
	register("hostname", func(t *Test) {
		c := t.container()
		c.Config.Hostname = "hostname-specific"
		c.run()
	})
}

// A sysfs cannot be mounted for a network namespace that is not the container's own.
func (c *Container) bindInstead(destination string) {
	for i := range c.Config.Mounts {
		if c.Config.Mounts[i].Destination == destination {
			c.Config.Mounts[i] = rspec.Mount{Destination: destination, Source: destination, Type: "bind",
				Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		}
	}
}

func checkMappings(t *Test) {
	c := t.container()
	c.Config.Linux.Namespaces = append(c.Config.Linux.Namespaces, rspec.LinuxNamespace{Type: rspec.UserNamespace})
	c.Config.Linux.UIDMappings = []rspec.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 2000}}
	c.Config.Linux.GIDMappings = []rspec.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 3000}}
	t.must(os.Chmod(t.directory, 0o755), "let the mapped root in")
	t.must(os.Chown(c.rootfs(""), 100000, 200000), "give the root file system to the mapped root")
	c.run()
}
