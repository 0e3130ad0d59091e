package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/generate"
	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

// A Test owns a directory, a state root and a cgroup; cleanUp says what could not be removed.
type Test struct {
	runtime    string
	directory  string
	cgroup     string // Below every hierarchy: "/conformance-PID".
	containers []*Container
}

func newTest(runtime string) *Test {
	directory, err := os.MkdirTemp("", "gantry-conformance-")
	if err != nil {
		panic(err)
	}
	return &Test{runtime: runtime, directory: directory, cgroup: fmt.Sprintf("/conformance-%d", os.Getpid())}
}

func (t *Test) fail(format string, arguments ...interface{}) {
	panic(fmt.Errorf(format, arguments...))
}

func (t *Test) must(err error, what string) {
	if err != nil {
		t.fail("%s: %v", what, err)
	}
}

func (t *Test) skip(reason string) { panic(skipped(reason)) }

func (t *Test) cleanUp() (left []string) {
	for _, container := range t.containers {
		container.Runtime("delete", "--force", container.ID)
	}
	own, _ := filepath.Glob("/sys/fs/cgroup/*" + t.cgroup)
	more, _ := filepath.Glob("/sys/fs/cgroup/*/*" + t.cgroup)
	for _, parent := range append(own, more...) {
		inner, _ := filepath.Glob(parent + "/*")
		for _, path := range inner {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				left = append(left, path)
				os.Remove(path)
			}
		}
		os.Remove(parent)
	}
	if entries, err := os.ReadDir(filepath.Join(t.directory, "state")); err == nil {
		for _, entry := range entries {
			if entry.Name() != ".cache" {
				left = append(left, "state of "+entry.Name())
			}
		}
	}
	os.RemoveAll(t.directory)
	return left
}

// A Container is a bundle with an id; nothing is made of it before Create or Run.
type Container struct {
	test   *Test
	ID     string
	Bundle string
	pidfd  int // Of init, after create.
	generate.Generator
}

// Result of one call of the runtime.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// A bundle whose program compares what it sees with config.json.
func (t *Test) container() *Container {
	made, err := generate.New("linux")
	t.must(err, "generate a configuration")
	id := fmt.Sprintf("c%d-%d", os.Getpid(), len(t.containers))
	c := &Container{test: t, ID: id, Bundle: filepath.Join(t.directory, id), Generator: made}
	t.containers = append(t.containers, c)
	for _, name := range []string{"", "proc", "sys", "dev", "tmp", "etc"} {
		t.must(os.MkdirAll(filepath.Join(c.Bundle, "rootfs", name), 0o755), "make the root file system")
	}
	program, err := os.ReadFile("/proc/self/exe")
	t.must(err, "read our program")
	t.must(os.WriteFile(filepath.Join(c.Bundle, "rootfs/conformance"), program, 0o755), "install our program")
	c.Config.Process.Args = []string{"/conformance", "inside"}
	c.Config.Linux.CgroupsPath = t.cgroup + "/" + id
	return c
}

// As container, but its program waits to be killed.
func (t *Test) pausing() *Container {
	c := t.container()
	c.Config.Process.Args = []string{"/conformance", "pause"}
	return c
}

func (c *Container) rootfs(path string) string { return filepath.Join(c.Bundle, "rootfs", path) }

// Writes config.json into the bundle and, for the program inside, into the root file system.
func (c *Container) save() {
	bytes, err := json.Marshal(c.Config)
	c.test.must(err, "write config.json")
	c.test.must(os.WriteFile(filepath.Join(c.Bundle, "config.json"), bytes, 0o644), "write config.json")
	c.test.must(os.WriteFile(c.rootfs("config.json"), bytes, 0o644), "write config.json")
}

// Runtime calls the runtime. A container that lives on keeps its output, so that goes to a file.
func (c *Container) Runtime(words ...string) Result {
	all := append([]string{"--root", filepath.Join(c.test.directory, "state")}, words...)
	command := exec.Command(c.test.runtime, all...)
	output, err := os.CreateTemp(c.test.directory, "output-")
	c.test.must(err, "make a file for the output")
	errors, err := os.CreateTemp(c.test.directory, "errors-")
	c.test.must(err, "make a file for the errors")
	defer output.Close()
	defer errors.Close()
	command.Stdout, command.Stderr = output, errors
	err = command.Run()
	if _, ended := err.(*exec.ExitError); err != nil && !ended {
		c.test.fail("run %s: %v", c.test.runtime, err)
	}
	return Result{command.ProcessState.ExitCode(), readFrom(output), readFrom(errors)}
}

func readFrom(file *os.File) string {
	file.Seek(0, io.SeekStart)
	text, _ := io.ReadAll(file)
	return string(text)
}

// Calls that have to succeed.
func (c *Container) ok(words ...string) Result {
	result := c.Runtime(words...)
	if result.Code != 0 {
		c.test.fail("%s %s ended with %d: %s%s", filepath.Base(c.test.runtime), strings.Join(words, " "), result.Code, result.Stdout, result.Stderr)
	}
	return result
}

// Calls that have to be refused.
func (c *Container) refused(words ...string) Result {
	result := c.Runtime(words...)
	if result.Code == 0 {
		c.test.fail("%s %s succeeded", filepath.Base(c.test.runtime), strings.Join(words, " "))
	}
	return result
}

func (c *Container) create() {
	c.save()
	c.ok("create", "--bundle", c.Bundle, "--pid-file", c.pidFile(), c.ID)
	// Now, while init waits: later its number may be somebody else's.
	fd, _, errno := unix.Syscall(unix.SYS_PIDFD_OPEN, uintptr(c.state().Pid), 0, 0)
	if errno != 0 {
		c.test.fail("open the pidfd of init: %v", errno)
	}
	c.pidfd = int(fd)
}

func (c *Container) start() { c.ok("start", c.ID) }

func (c *Container) pidFile() string { return filepath.Join(c.Bundle, "pid") }

// Runs the container to its end and has all that the program inside found wrong as the failure.
func (c *Container) run() Result {
	c.save()
	result := c.Runtime("run", "--bundle", c.Bundle, c.ID)
	if result.Code != 0 {
		c.test.fail("the container ended with %d:\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
	return result
}

func (c *Container) state() rspec.State {
	var state rspec.State
	result := c.ok("state", c.ID)
	c.test.must(json.NewDecoder(bytes.NewBufferString(result.Stdout)).Decode(&state), "decode the state")
	return state
}

func (c *Container) expectStatus(wanted string) rspec.State {
	state := c.state()
	if state.Status != rspec.ContainerState(wanted) {
		c.test.fail("the status is %q, not %q", state.Status, wanted)
	}
	return state
}

// Waits until init has ended, by its pidfd: what ends it has been done already.
func (c *Container) awaitStopped() {
	poll := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n != 1 {
			c.test.fail("the container did not stop within %v", patience)
		}
		break
	}
	c.expectStatus("stopped")
}
