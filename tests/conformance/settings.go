package main

import (
	"os"
	"strconv"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

func atoi(t *Test, text string) int64 {
	value, err := strconv.ParseInt(text, 10, 64)
	t.must(err, "read a number")
	return value
}

// Registers a check that changes the default document and lets the program inside compare.
func compare(name string, change func(t *Test, c *Container)) {
	register(name, func(t *Test) {
		c := t.container()
		change(t, c)
		c.run()
	})
}

func init() {
	compare("default", func(*Test, *Container) {})
	compare("process", func(t *Test, c *Container) {
		t.must(os.Mkdir(c.rootfs("test"), 0o755), "make a directory")
		c.Config.Process.Cwd = "/test"
		c.Config.Process.Env = append(c.Config.Process.Env, "testa=valuea", "testb=123")
		c.Config.Process.Args = append(c.Config.Process.Args)
	})
	compare("process_user", func(_ *Test, c *Container) {
		umask := uint32(0o27)
		c.Config.Process.User = rspec.User{UID: 10, GID: 20, AdditionalGids: []uint32{5, 7}, Umask: &umask}
	})
	compare("process_rlimits", func(_ *Test, c *Container) {
		c.Config.Process.Rlimits = nil
		for _, kind := range []string{"CORE", "CPU", "DATA", "FSIZE", "NOFILE", "STACK"} {
			c.Config.Process.Rlimits = append(c.Config.Process.Rlimits,
				rspec.POSIXRlimit{Type: "RLIMIT_" + kind, Soft: 1 << 27, Hard: 1 << 28})
		}
		// Above the kernel's fs.nr_open it would fail.
		c.Config.Process.Rlimits[4].Soft, c.Config.Process.Rlimits[4].Hard = 512, 1024
	})
	compare("process_capabilities", func(_ *Test, c *Container) {
		set := []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"}
		c.Config.Process.Capabilities = &rspec.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set, Inheritable: set[:2], Ambient: set[:1]}
	})
	register("process_capabilities_fail", func(t *Test) {
		c := t.container()
		c.Config.Process.Capabilities.Bounding = []string{"not a capability"}
		c.save()
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
	compare("process_oom_score_adj", func(_ *Test, c *Container) {
		score := 500
		c.Config.Process.OOMScoreAdj = &score
	})
	compare("process_no_new_privileges", func(_ *Test, c *Container) { c.Config.Process.NoNewPrivileges = true })
	compare("root_readonly_true", func(_ *Test, c *Container) { c.Config.Root.Readonly = true })
	compare("root_readonly_false", func(_ *Test, c *Container) { c.Config.Root.Readonly = false })
	compare("mounts", func(t *Test, c *Container) {
		t.must(os.Mkdir(c.Bundle+"/volume", 0o755), "make a directory")
		c.Config.Mounts = append(c.Config.Mounts,
			rspec.Mount{Destination: "/bound", Type: "bind", Source: c.Bundle + "/volume", Options: []string{"bind", "ro", "nosuid"}},
			rspec.Mount{Destination: "/deep/er/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "size=1m"}})
	})
	compare("linux_masked_paths", func(t *Test, c *Container) {
		t.must(os.WriteFile(c.rootfs("secret"), []byte("x"), 0o644), "make a file")
		t.must(os.Mkdir(c.rootfs("secrets"), 0o755), "make a directory")
		t.must(os.WriteFile(c.rootfs("secrets/one"), []byte("x"), 0o644), "make a file")
		t.must(os.Symlink("secret", c.rootfs("link")), "make a link")
		c.Config.Linux.MaskedPaths = []string{"/secret", "/secrets", "/missing"}
	})
	compare("linux_readonly_paths", func(t *Test, c *Container) {
		t.must(os.WriteFile(c.rootfs("fixed"), []byte("x"), 0o644), "make a file")
		t.must(os.Mkdir(c.rootfs("fixeds"), 0o755), "make a directory")
		c.Config.Linux.ReadonlyPaths = []string{"/fixed", "/fixeds", "/missing"}
	})
	for _, mode := range []string{"shared", "slave", "private", "unbindable"} {
		mode := mode
		compare("linux_rootfs_propagation_"+mode, func(_ *Test, c *Container) { c.Config.Linux.RootfsPropagation = mode })
	}
	compare("linux_sysctl", func(_ *Test, c *Container) {
		c.Config.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
	})
	compare("linux_seccomp", func(_ *Test, c *Container) {
		c.Config.Linux.Seccomp = &rspec.LinuxSeccomp{DefaultAction: rspec.ActAllow,
			Syscalls: []rspec.LinuxSyscall{{Names: []string{"getpriority"}, Action: rspec.ActErrno}}}
	})
	compare("linux_devices", func(_ *Test, c *Container) {
		mode := os.FileMode(0o640)
		id := uint32(5)
		c.Config.Linux.Devices = []rspec.LinuxDevice{
			{Path: "/dev/test-char", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &id, GID: &id},
			{Path: "/dev/test-block", Type: "b", Major: 8, Minor: 666, FileMode: &mode},
			{Path: "/dev/test-pipe", Type: "p", FileMode: &mode}}
	})
	// A label that the kernel cannot honour is an error; where it can, the program has it.
	register("linux_process_apparmor_profile", func(t *Test) {
		if text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && text[0] == 'Y' {
			t.skip("AppArmor is enabled here, and loading a profile would change this machine")
		}
		c := t.container()
		c.Config.Process.ApparmorProfile = "acme_secure_profile"
		c.save()
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
	register("linux_mount_label", func(t *Test) {
		if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
			t.skip("SELinux is enabled here, and labels depend on the machine's policy")
		}
		c := t.container()
		c.Config.Process.SelinuxLabel = "system_u:system_r:svirt_lxc_net_t:s0:c124,c675"
		c.save()
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
}
