package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"syscall"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/syndtr/gocapability/capability"
	"golang.org/x/sys/unix"
)

// What is wrong, seen from inside; the exit code is 1 if anything is.
type observer struct {
	spec  rspec.Spec
	wrong []string
}

func (o *observer) expect(holds bool, format string, arguments ...interface{}) {
	if !holds {
		o.wrong = append(o.wrong, fmt.Sprintf(format, arguments...))
	}
}

func inside() int {
	var o observer
	text, err := os.ReadFile("/config.json")
	if err == nil {
		err = json.Unmarshal(text, &o.spec)
	}
	if err != nil {
		fmt.Println("read config.json:", err)
		return 1
	}
	o.process()
	o.status()
	o.rlimits()
	o.root()
	o.mounts()
	o.covered()
	o.devices()
	o.kernel()
	for _, one := range o.wrong {
		fmt.Println(one)
	}
	if len(o.wrong) > 0 {
		return 1
	}
	return 0
}

func (o *observer) process() {
	wanted := o.spec.Process
	cwd, _ := os.Getwd()
	o.expect(cwd == wanted.Cwd, "the working directory is %s, not %s", cwd, wanted.Cwd)
	for _, entry := range wanted.Env {
		halves := strings.SplitN(entry, "=", 2)
		o.expect(os.Getenv(halves[0]) == halves[1], "%s is %q", halves[0], os.Getenv(halves[0]))
	}
	o.expect(reflect.DeepEqual(os.Args, wanted.Args), "the words are %q", os.Args)
	o.expect(os.Getuid() == int(wanted.User.UID), "the user is %d", os.Getuid())
	o.expect(os.Getgid() == int(wanted.User.GID), "the group is %d", os.Getgid())
	groups, _ := os.Getgroups()
	has := map[int]bool{}
	for _, group := range groups {
		has[group] = true
	}
	for _, group := range wanted.User.AdditionalGids {
		o.expect(has[int(group)], "group %d is missing in %v", group, groups)
	}
	if wanted.User.Umask != nil {
		mask := syscall.Umask(0)
		syscall.Umask(mask)
		o.expect(uint32(mask) == *wanted.User.Umask, "the umask is %o", mask)
	}
	if o.spec.Hostname != "" {
		name, _ := os.Hostname()
		o.expect(name == o.spec.Hostname, "the host's name is %q", name)
	}
	if wanted.OOMScoreAdj != nil {
		text, _ := os.ReadFile("/proc/self/oom_score_adj")
		o.expect(strings.TrimSpace(string(text)) == strconv.Itoa(*wanted.OOMScoreAdj), "oom_score_adj is %s", text)
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		number, _ := strconv.Atoi(entry.Name())
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		ours := strings.Contains(target, "eventpoll") || strings.Contains(target, "/proc/") || target == "" || strings.HasPrefix(target, "pipe:")
		o.expect(number < 3 || ours, "descriptor %d is %s", number, target)
	}
}

// Lines of /proc/self/status: capabilities, no_new_privs, seccomp.
func (o *observer) status() {
	text, _ := os.ReadFile("/proc/self/status")
	fields := map[string]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if halves := strings.SplitN(line, ":", 2); len(halves) == 2 {
			fields[halves[0]] = strings.TrimSpace(halves[1])
		}
	}
	if sets := o.spec.Process.Capabilities; sets != nil {
		root := o.spec.Process.User.UID == 0
		for name, wanted := range map[string][]string{"CapBnd": sets.Bounding, "CapInh": sets.Inheritable, "CapAmb": sets.Ambient} {
			o.expectMask(name, fields[name], wanted)
		}
		if root { // Others keep only the ambient ones through exec.
			o.expectMask("CapEff", fields["CapEff"], sets.Effective)
			o.expectMask("CapPrm", fields["CapPrm"], sets.Permitted)
		}
	}
	if o.spec.Process.NoNewPrivileges {
		o.expect(fields["NoNewPrivs"] == "1", "no_new_privs is %s", fields["NoNewPrivs"])
	}
	if o.spec.Linux.Seccomp != nil {
		o.expect(fields["Seccomp"] == "2", "the seccomp mode is %s", fields["Seccomp"])
		for _, rule := range o.spec.Linux.Seccomp.Syscalls {
			if rule.Names[0] == "getpriority" {
				_, _, errno := syscall.Syscall(syscall.SYS_GETPRIORITY, 0, 0, 0)
				o.expect(errno == syscall.EPERM, "getpriority says %v", errno)
			}
		}
	}
}

func (o *observer) expectMask(name, got string, wanted []string) {
	var mask uint64
	for _, one := range wanted {
		for _, known := range capability.List() {
			if "CAP_"+strings.ToUpper(known.String()) == one {
				mask |= 1 << uint(known)
			}
		}
	}
	value, _ := strconv.ParseUint(got, 16, 64)
	o.expect(value == mask, "%s is %x, not %x", name, value, mask)
}

func (o *observer) rlimits() {
	numbers := map[string]int{"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
		"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_STACK": unix.RLIMIT_STACK}
	for _, wanted := range o.spec.Process.Rlimits {
		var got unix.Rlimit
		unix.Getrlimit(numbers[wanted.Type], &got)
		// Go raises the soft limit of open files in its own processes.
		soft := got.Cur == wanted.Soft || wanted.Type == "RLIMIT_NOFILE" && got.Cur == wanted.Hard
		o.expect(got.Max == wanted.Hard && soft, "%s is %d %d", wanted.Type, got.Cur, got.Max)
	}
}

func (o *observer) root() {
	err := os.WriteFile("/probe", nil, 0o644)
	if o.spec.Process.User.UID == 0 {
		o.expect((err == syscall.EROFS || strings.Contains(fmt.Sprint(err), "read-only")) == o.spec.Root.Readonly, "writing to the root: %v", err)
	}
	os.Remove("/probe")
	if wanted := o.spec.Linux.RootfsPropagation; wanted != "" {
		for _, mount := range mountTable() {
			if mount.point != "/" {
				continue
			}
			shared := strings.Contains(mount.optional, "shared:")
			slave := strings.Contains(mount.optional, "master:")
			unbindable := strings.Contains(mount.optional, "unbindable")
			// A slave of nothing, as where the host's mount is private, is private.
			ok := map[string]bool{"shared": shared, "slave": !shared && !unbindable, "private": !shared && !slave && !unbindable, "unbindable": unbindable}
			o.expect(ok[wanted], "the root's propagation is %q, not %s", mount.optional, wanted)
		}
	}
}

type mountLine struct{ point, options, optional, kind, super string }

func mountTable() (table []mountLine) {
	text, _ := os.ReadFile("/proc/self/mountinfo")
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		halves := strings.SplitN(line, " - ", 2)
		left, right := strings.Fields(halves[0]), strings.Fields(halves[1])
		table = append(table, mountLine{left[4], left[5], strings.Join(left[6:], " "), right[0], right[len(right)-1]})
	}
	return table
}

func (o *observer) mounts() {
	table := mountTable()
	place := 0
	for _, wanted := range o.spec.Mounts {
		found := -1
		for i, mount := range table {
			if mount.point == filepath.Clean(wanted.Destination) && (wanted.Type == "bind" || mount.kind == wanted.Type) {
				found = i
			}
		}
		o.expect(found >= 0, "nothing of type %s is mounted on %s", wanted.Type, wanted.Destination)
		if found < 0 {
			continue
		}
		o.expect(found >= place, "%s is mounted too early", wanted.Destination)
		place = found
		options := strings.Split(table[found].options, ",")
		for _, option := range wanted.Options {
			switch option {
			case "ro", "nosuid", "nodev", "noexec":
				o.expect(contains(options, option), "%s is not %s: %v", wanted.Destination, option, options)
			}
		}
	}
}

func contains(list []string, one string) bool {
	sort.Strings(list)
	at := sort.SearchStrings(list, one)
	return at < len(list) && list[at] == one
}

func (o *observer) covered() {
	for _, path := range o.spec.Linux.MaskedPaths {
		info, err := os.Stat(path)
		if os.IsNotExist(err) {
			continue
		}
		if info.IsDir() {
			entries, _ := os.ReadDir(path)
			o.expect(len(entries) == 0, "%s is not empty", path)
			continue
		}
		text, err := os.ReadFile(path)
		o.expect(len(text) == 0, "%s can be read: %q %v", path, text, err)
	}
	for _, path := range o.spec.Linux.ReadonlyPaths {
		info, err := os.Stat(path)
		if os.IsNotExist(err) {
			continue
		}
		if info.IsDir() {
			path = filepath.Join(path, "probe")
			err = os.WriteFile(path, nil, 0o644)
		} else {
			_, err = os.OpenFile(path, os.O_WRONLY, 0)
		}
		pathError, is := err.(*fs.PathError)
		o.expect(is && pathError.Err == syscall.EROFS, "%s can be written: %v", path, err)
	}
}

func (o *observer) devices() {
	for path, number := range map[string][2]uint32{"/dev/null": {1, 3}, "/dev/zero": {1, 5}, "/dev/full": {1, 7},
		"/dev/random": {1, 8}, "/dev/urandom": {1, 9}, "/dev/tty": {5, 0}} {
		var info unix.Stat_t
		err := unix.Stat(path, &info)
		o.expect(err == nil && info.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(uint64(info.Rdev)) == number[0] && unix.Minor(uint64(info.Rdev)) == number[1],
			"%s is not the device %v: %v", path, number, err)
	}
	for path, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		got, err := os.Readlink(path)
		o.expect(got == target, "%s leads to %q: %v", path, got, err)
	}
	got, _ := os.Readlink("/dev/ptmx")
	o.expect(got == "pts/ptmx" || got == "/dev/pts/ptmx", "/dev/ptmx leads to %q", got)
	kinds := map[string]uint32{"c": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	for _, wanted := range o.spec.Linux.Devices {
		var info unix.Stat_t
		err := unix.Lstat(wanted.Path, &info)
		o.expect(err == nil && info.Mode&unix.S_IFMT == kinds[wanted.Type], "%s is not of type %s: %v", wanted.Path, wanted.Type, err)
		if wanted.Type != "p" {
			o.expect(int64(unix.Major(uint64(info.Rdev))) == wanted.Major && int64(unix.Minor(uint64(info.Rdev))) == wanted.Minor,
				"%s is %x", wanted.Path, info.Rdev)
		}
		o.expect(info.Mode&0o7777 == uint32(*wanted.FileMode), "the mode of %s is %o", wanted.Path, info.Mode)
		if wanted.UID != nil {
			o.expect(info.Uid == *wanted.UID && info.Gid == *wanted.GID, "%s is %d:%d's", wanted.Path, info.Uid, info.Gid)
		}
	}
}

func (o *observer) kernel() {
	for name, wanted := range o.spec.Linux.Sysctl {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		o.expect(strings.TrimSpace(string(text)) == wanted, "%s is %s: %v", name, text, err)
	}
	for file, wanted := range map[string][]rspec.LinuxIDMapping{"uid_map": o.spec.Linux.UIDMappings, "gid_map": o.spec.Linux.GIDMappings} {
		if len(wanted) == 0 {
			continue
		}
		text, _ := os.ReadFile("/proc/self/" + file)
		for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			got := strings.Join(strings.Fields(line), " ")
			o.expect(i < len(wanted) && got == fmt.Sprintf("%d %d %d", wanted[i].ContainerID, wanted[i].HostID, wanted[i].Size), "%s has %q", file, got)
		}
	}
}
