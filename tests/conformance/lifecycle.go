package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
)

func init() {
	register("create", func(t *Test) {
		c := t.pausing()
		c.save()
		c.refused("create", "--bundle", c.Bundle) // No id.
		c.create()
		c.expectStatus("created")
		c.refused("create", "--bundle", c.Bundle, c.ID) // The id is taken…
		c.expectStatus("created")                       // …and the one who has it is not touched.
	})
	register("start", func(t *Test) {
		c := t.pausing()
		c.refused("start")
		c.refused("start", c.ID)
		c.create()
		c.start()
		c.expectStatus("running")
		c.refused("start", c.ID)
		c.expectStatus("running")
	})
	register("start_stopped", func(t *Test) {
		c := t.container()
		c.create()
		c.start()
		c.awaitStopped()
		c.refused("start", c.ID)
	})
	register("state", func(t *Test) {
		c := t.pausing()
		c.Config.Annotations = map[string]string{"org.example.key": "value"}
		c.refused("state")
		c.refused("state", c.ID)
		c.create()
		state := c.expectStatus("created")
		if state.ID != c.ID || state.Bundle != c.Bundle || state.Version == "" || state.Pid <= 0 {
			t.fail("wrong state: %+v", state)
		}
		if state.Annotations["org.example.key"] != "value" {
			t.fail("annotations are %v", state.Annotations)
		}
		c.start()
		if c.expectStatus("running").Pid != state.Pid {
			t.fail("the pid changed at start")
		}
	})
	register("kill", func(t *Test) {
		c := t.pausing()
		c.refused("kill")
		c.refused("kill", c.ID, "KILL")
		c.create()
		c.ok("kill", c.ID, "KILL") // A created one can be killed, too.
		c.awaitStopped()
	})
	register("killsig", func(t *Test) {
		for _, signal := range []string{"TERM", "SIGHUP", "9", "INT"} {
			c := t.pausing()
			// The first process of a pid namespace is deaf to signals that it does not handle.
			c.RemoveLinuxNamespace("pid")
			c.create()
			c.start()
			c.ok("kill", c.ID, signal)
			c.awaitStopped()
			c.ok("delete", c.ID)
		}
	})
	register("kill_no_effect", func(t *Test) {
		c := t.container()
		c.create()
		c.start()
		c.awaitStopped()
		c.refused("kill", c.ID, "KILL")
		c.expectStatus("stopped")
	})
	register("delete", func(t *Test) {
		c := t.pausing()
		c.refused("delete")
		c.refused("delete", c.ID)
		c.create()
		c.start()
		c.refused("delete", c.ID)
		c.expectStatus("running")
		c.ok("kill", c.ID, "KILL")
		c.awaitStopped()
		c.ok("delete", c.ID)
		c.refused("state", c.ID)
		c.create() // The id is free again.
	})
	register("delete_resources", func(t *Test) {
		c := t.container()
		c.create()
		cgroups := c.cgroupDirectories()
		if len(cgroups) == 0 {
			t.fail("the container has no cgroup")
		}
		c.start()
		c.awaitStopped()
		c.ok("delete", c.ID)
		for _, directory := range cgroups {
			if _, err := os.Stat(directory); err == nil {
				t.fail("%s is still there", directory)
			}
		}
	})
	register("delete_only_create_resources", func(t *Test) {
		c := t.container()
		c.create()
		// What the user made beside it is not the container's.
		own := filepath.Join("/sys/fs/cgroup/pids", t.cgroup+"-own")
		t.must(os.Mkdir(own, 0o755), "make a cgroup")
		defer os.Remove(own)
		c.start()
		c.awaitStopped()
		c.ok("delete", c.ID)
		if _, err := os.Stat(own); err != nil {
			t.fail("the cgroup of somebody else is gone: %v", err)
		}
	})
	register("config_updates_without_affect", func(t *Test) {
		c := t.container()
		c.Config.Process.Env = append(c.Config.Process.Env, "BEFORE=1")
		c.create()
		inside, err := os.ReadFile(c.rootfs("config.json"))
		t.must(err, "read config.json")
		c.Config.Process.Env = append(c.Config.Process.Env, "AFTER=1")
		c.Config.Process.Args = []string{"/nowhere"}
		c.save()
		t.must(os.WriteFile(c.rootfs("config.json"), inside, 0o644), "write config.json")
		c.start() // It still is what create saw.
		c.awaitStopped()
	})
	register("pidfile", func(t *Test) {
		c := t.pausing()
		c.create()
		text, err := os.ReadFile(c.pidFile())
		t.must(err, "read the pid file")
		pid, err := strconv.Atoi(string(text))
		t.must(err, "a number without anything else")
		if state := c.state(); state.Pid != pid {
			t.fail("the pid file says %d, the state %d", pid, state.Pid)
		}
		t.must(syscall.Kill(pid, 0), "the process exists")
	})
	register("misc_props", func(t *Test) {
		// Unknown members are ignored; a wrong version is not.
		c := t.container()
		c.save()
		path := filepath.Join(c.Bundle, "config.json")
		text, err := os.ReadFile(path)
		t.must(err, "read config.json")
		t.must(os.WriteFile(path, []byte(`{"unknown":{"a":[1]},`+string(text[1:])), 0o644), "write config.json")
		c.ok("run", "--bundle", c.Bundle, c.ID)
		wrong := strings.Replace(string(text), `"ociVersion":"`, `"ociVersion":"x`, 1)
		t.must(os.WriteFile(path, []byte(wrong), 0o644), "write config.json")
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
	register("no_config", func(t *Test) {
		c := t.container()
		c.refused("create", "--bundle", c.Bundle, c.ID)
		c.refused("state", c.ID)
	})
	register("process_fail", func(t *Test) {
		// Each of these is found at create, and leaves nothing behind.
		for what, spoil := range map[string]func(*rspec.Process){
			"args":    func(p *rspec.Process) { p.Args = nil },
			"cwd":     func(p *rspec.Process) { p.Cwd = "relative" },
			"program": func(p *rspec.Process) { p.Args = []string{"/nowhere"} },
			"rlimit": func(p *rspec.Process) {
				p.Rlimits = []rspec.POSIXRlimit{{Type: "RLIMIT_TEST", Soft: 1, Hard: 1}}
			},
		} {
			c := t.container()
			spoil(c.Config.Process)
			c.save()
			if result := c.Runtime("create", "--bundle", c.Bundle, c.ID); result.Code == 0 {
				t.fail("a bad %s was taken", what)
			}
			c.refused("state", c.ID)
		}
	})
}
