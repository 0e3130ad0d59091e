package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"

	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/cgroups"
)

// The container's directories in all hierarchies that are mounted.
func (c *Container) cgroupDirectories() []string {
	var found []string
	all, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, hierarchy := range all {
		for _, place := range []string{c.Config.Linux.CgroupsPath} {
			directory := filepath.Join(hierarchy, place)
			if _, err := os.Stat(directory); err == nil {
				found = append(found, directory)
			}
		}
	}
	return found
}

func (t *Test) needController(name string) {
	if _, err := os.Stat("/sys/fs/cgroup/" + name + "/tasks"); err != nil {
		t.skip("no cgroup v1 hierarchy of the controller " + name)
	}
}

// Creates with `resources`, reads them back by Debian's cgroups package, compares.
func checkLimits(t *Test, controller string, resources *rspec.LinuxResources, compare func(cg cgroups.Cgroup, pid int, path string)) {
	t.needController(controller)
	for _, relative := range []bool{false, true} {
		c := t.pausing()
		if relative {
			c.Config.Linux.CgroupsPath = strings.TrimPrefix(c.Config.Linux.CgroupsPath, "/")
		}
		c.Config.Linux.Resources = resources
		c.create()
		cg, err := cgroups.FindCgroup()
		t.must(err, "find the cgroups")
		path, err := cgroups.GetSubsystemPath(c.state().Pid, controller)
		t.must(err, "find the container's cgroup")
		if !strings.HasSuffix(path, c.Config.Linux.CgroupsPath) {
			t.fail("the container is in %s, not in %s", path, c.Config.Linux.CgroupsPath)
		}
		compare(cg, c.state().Pid, path)
		c.ok("delete", "--force", c.ID)
	}
}

func equal(t *Test, what string, got, wanted interface{}) {
	if !reflect.DeepEqual(got, wanted) {
		t.fail("%s is %v, not %v", what, got, wanted)
	}
}

func number(value int64) *int64     { return &value }
func positive(value uint64) *uint64 { return &value }

func init() {
	register("linux_cgroups_pids", func(t *Test) {
		checkLimits(t, "pids", &rspec.LinuxResources{Pids: &rspec.LinuxPids{Limit: 123}},
			func(cg cgroups.Cgroup, pid int, path string) {
				got, err := cg.GetPidsData(pid, path)
				t.must(err, "read the limits")
				equal(t, "the pids limit", got.Limit, int64(123))
			})
	})
	register("linux_cgroups_memory", func(t *Test) {
		limit, low := int64(50593792), int64(25296896)
		checkLimits(t, "memory", &rspec.LinuxResources{Memory: &rspec.LinuxMemory{Limit: number(limit), Reservation: number(low)}},
			func(cg cgroups.Cgroup, pid int, path string) {
				got, err := cg.GetMemoryData(pid, path)
				t.must(err, "read the limits")
				equal(t, "the memory limit", *got.Limit, limit)
				equal(t, "the reservation", *got.Reservation, low)
			})
	})
	register("linux_cgroups_cpus", func(t *Test) {
		checkLimits(t, "cpu", &rspec.LinuxResources{CPU: &rspec.LinuxCPU{Shares: positive(512), Quota: number(60000), Period: positive(120000)}},
			func(cg cgroups.Cgroup, pid int, path string) {
				got, err := cg.GetCPUData(pid, path)
				t.must(err, "read the limits")
				equal(t, "the shares", *got.Shares, uint64(512))
				equal(t, "the quota", *got.Quota, int64(60000))
				equal(t, "the period", *got.Period, uint64(120000))
			})
	})
	register("linux_cgroups_cpuset", func(t *Test) {
		t.needController("cpuset")
		checkLimits(t, "cpuset", &rspec.LinuxResources{CPU: &rspec.LinuxCPU{Cpus: "0", Mems: "0"}},
			func(_ cgroups.Cgroup, _ int, path string) {
				for name, wanted := range map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0"} {
					text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuset", path, name))
					t.must(err, "read "+name)
					equal(t, name, strings.TrimSpace(string(text)), wanted)
				}
			})
	})
	register("linux_cgroups_devices", func(t *Test) {
		major, minor := int64(10), int64(229)
		rules := []rspec.LinuxDeviceCgroup{{Allow: false, Access: "rwm"},
			{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"},
			{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: "rw"}}
		checkLimits(t, "devices", &rspec.LinuxResources{Devices: rules},
			func(cg cgroups.Cgroup, pid int, path string) {
				got, err := cg.GetDevicesData(pid, path)
				t.must(err, "read the rules")
				for _, wanted := range rules[1:] {
					found := false
					for _, rule := range got {
						found = found || rule.Type == wanted.Type && rule.Major != nil && *rule.Major == major &&
							rule.Minor != nil && *rule.Minor == minor && rule.Access == wanted.Access
					}
					if !found {
						t.fail("no rule for %s 10:229 %s", wanted.Type, wanted.Access)
					}
				}
				for _, rule := range got {
					if rule.Type == "a" {
						t.fail("everything is allowed: %+v", rule)
					}
				}
			})
	})
	register("linux_cgroups_blkio", func(t *Test) {
		major, minor := firstDisk(t)
		device := rspec.LinuxThrottleDevice{Rate: 102400}
		device.Major, device.Minor = major, minor
		checkLimits(t, "blkio", &rspec.LinuxResources{BlockIO: &rspec.LinuxBlockIO{
			ThrottleReadBpsDevice: []rspec.LinuxThrottleDevice{device}, ThrottleWriteIOPSDevice: []rspec.LinuxThrottleDevice{device}}},
			func(_ cgroups.Cgroup, _ int, path string) {
				for _, name := range []string{"blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device"} {
					text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/blkio", path, name))
					t.must(err, "read "+name)
					if !strings.HasSuffix(strings.TrimSpace(string(text)), " 102400") {
						t.fail("%s is %q", name, text)
					}
				}
			})
	})
	for _, controller := range []string{"hugetlb", "net_cls"} {
		controller := controller
		name := map[string]string{"hugetlb": "linux_cgroups_hugetlb", "net_cls": "linux_cgroups_network"}[controller]
		register(name, func(t *Test) {
			class := uint32(255)
			resources := &rspec.LinuxResources{Network: &rspec.LinuxNetwork{ClassID: &class}}
			if controller == "hugetlb" {
				resources = &rspec.LinuxResources{HugepageLimits: []rspec.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}
			}
			if _, err := os.Stat("/sys/fs/cgroup/" + controller + "/tasks"); err != nil {
				// A limit that cannot be set is refused, not forgotten.
				c := t.container()
				c.Config.Linux.Resources = resources
				c.save()
				c.refused("create", "--bundle", c.Bundle, c.ID)
				c.refused("state", c.ID)
				return
			}
			checkLimits(t, controller, resources, func(cg cgroups.Cgroup, pid int, path string) {
				if controller == "hugetlb" {
					got, err := cg.GetHugepageLimitData(pid, path)
					t.must(err, "read the limits")
					for _, limit := range got {
						if limit.Pagesize == "2MB" {
							equal(t, "the limit", limit.Limit, uint64(4<<20))
						}
					}
					return
				}
				got, err := cg.GetNetworkData(pid, path)
				t.must(err, "read the limits")
				equal(t, "the class", *got.ClassID, class)
			})
		})
	}
}

func firstDisk(t *Test) (major, minor int64) {
	disks, _ := filepath.Glob("/sys/block/*/dev")
	for _, disk := range disks {
		if strings.Contains(disk, "loop") || strings.Contains(disk, "ram") {
			continue
		}
		text, err := os.ReadFile(disk)
		t.must(err, "read "+disk)
		halves := strings.Split(strings.TrimSpace(string(text)), ":")
		return atoi(t, halves[0]), atoi(t, halves[1])
	}
	t.skip("no block device to limit")
	return 0, 0
}
