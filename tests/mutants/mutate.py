#!/usr/bin/env python3
"""Takes away the runtime's defences one by one and shows that a test notices.

    tests/mutants/mutate.py WORKTREE TESTS [NAME …]

WORKTREE is a git worktree of its own with a configured build/release: its sources are changed and put back. TESTS is a
build's tests/ with the programs that attack. Each mutant is built, the attack that belongs to it is run on it, and has to
fail. Ends with 1 when a mutant lived. Not part of the quick run: every mutant is a build.
"""
import os
import subprocess
import sys

# name: (rule, file, what is there, what is put in its place, test program, gtest filter); a defence that is
# there twice has two files, and its texts are divided by '|||'.
MUTANTS = {
    'links_for_proc': (13, 'runtime/init/rootfs_path.cc', 'no_links ? RESOLVE_NO_SYMLINKS : 0', '0',
                       'attack', '*LinksInPlaceOfProcSysAndDevAreRefused'),
    'paths_leave_the_root': (8, 'runtime/init/rootfs_path.cc', 'how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve;',
                             'how.resolve = resolve;', 'attack', '*MountTargetsCannotLeaveTheRoot'),
    'swapped_paths_leave_the_root': (8, 'runtime/init/rootfs_path.cc',
                                     'fd = ::syscall(SYS_openat2, root.get(), path.c_str(), &how, sizeof how);',
                                     '(void)how;\n    fd = ::open(absl::StrCat("/proc/self/fd/", root.get(), "/", path).c_str(), flags | O_CLOEXEC);',
                                     'image_attack', '*ATargetThatIsSwapped*'),
    'proc_through_a_link': (11, 'runtime/init/rootfs_mount.cc', 'IsOnProc(target) &&', 'false &&',
                            'attack', '*LinksIntoProcAreNoMountTargets'),
    'proc_by_name': (11, 'runtime/init/mount_plan.cc', 'if (!in_proc) return absl::OkStatus();', 'if (!in_proc || plan.bind) return absl::OkStatus();', 'image_attack', '*OnlyAFewFilesOfProc*'),
    'descriptors': (1, 'runtime/init/process_setup.cc runtime/init/init.cc',
                    'if (kernel::CloseRange(first, ~0u, 1u << 2 /* CLOSE_RANGE_CLOEXEC */) == 0)|||if (kept > first) kernel::CloseRange(first, kept - 1, 0);\n  kernel::CloseRange(std::max(first, kept + 1), ~0u, 0);',
                    'if (first < ~0u)|||(void)kept, (void)first;', 'attack', '*DescriptorsOfTheHostDoNotLeak'),
    'working_directory': (4, 'runtime/init/process_setup.cc runtime/init/rootfs.cc',
                          "< 0 || here[0] != '/'|||Annotate(OpenOrMakeDirectory(root_, CleanPath(plan_.spec->process->cwd)),",
                          '< -1|||Annotate(OpenOrMakeDirectory(root_, "/"),', 'attack', '*AWorkingDirectoryOutsideIsRefused'),
    'proc_exe': (2, 'runtime/entry.cc runtime/main.cc',
                 'Call(SYS_execveat, tree, reinterpret_cast<long>(kEmpty), reinterpret_cast<long>(argv),|||status = ProtectSelf(argv);',
                 'Call(SYS_close, tree, reinterpret_cast<long>(kEmpty), reinterpret_cast<long>(argv),|||status = absl::OkStatus();', 'attack', '*TheRuntimesFileCannotBeReached*'),
    'masks_follow_links': (12, 'runtime/init/rootfs_cover.cc',
                           'Mask(const std::string& path) {\n  UniqueFd target(OpenIn(root_, CleanPath(path), O_PATH));',
                           'Mask(const std::string& path) {\n  UniqueFd target(::open(absl::StrCat("/proc/self/fd/", root_.get(), path).c_str(), O_PATH));',
                           'attack', '*MaskedPathsThatAreLinks*'),
    'null_device': (12, 'runtime/init/rootfs_cover.cc', 'null.st_rdev != ::makedev(1, 3)', 'false',
                    'image_attack', '*AFalseNullDevice*'),
    'ptmx': (12, 'runtime/init/stdio.cc', 'file_system.f_type != DEVPTS_SUPER_MAGIC ||', 'false ||',
             'image_attack', '*AFalsePtmx*'),
    'read_only_paths': (10, 'runtime/init/rootfs_cover.cc',
                        'for (const std::string& path : plan_.spec->linux_.readonly_paths)\n    RETURN_IF_ERROR(MakeReadOnly(path));',
                        '', 'attack', '*ReadOnlyPathsCannotBeWritten*'),
    'propagation': (10, 'runtime/init/rootfs.cc', 'shared ? (MS_SHARED | MS_REC) : (MS_SLAVE | MS_REC)',
                    'MS_SHARED | MS_REC', 'attack', '*MountsDoNotReachTheHost'),
    'device_cgroup': (21, 'lib/cgroup/limits.cc', 'for (const DeviceLine& line : DeviceLinesV1(WithDefaultDevices(rules))) {',
                      'for (const DeviceLine& line : DeviceLinesV1(WithDefaultDevices(rules))) {\n    if (!line.allow) continue;',
                      'attack', '*DevicesThatAreNotAllowed*'),
    'capabilities': (17, 'runtime/init/capabilities.cc', 'wanted.permitted &= have.permitted;', 'wanted = have;',
                     'attack', '*AWaitingInitHasOnly*'),
    'bounding_set': (17, 'runtime/init/capabilities.cc', 'bounding = CapabilityMask(kept);', 'bounding = ~CapabilityMask({});\n  (void)kept;',
                     'attack', '*PrivilegesAreExactly*'),
    'groups': (18, 'runtime/init/process_setup.cc', '!plan_.keep_groups && ::syscall', 'false && ::syscall',
               'superset', '*AnAnnotationCanKeep*'),
    'no_new_privileges': (18, 'runtime/init/process_setup.cc', 'if (process.no_new_privileges && ::prctl', 'if (false && ::prctl',
                          'attack', '*PrivilegesAreExactly*'),
    'dumpable': (3, 'runtime/init/process_setup.cc', '::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)', '::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)',
                 'attack', '*AWaitingInitIsNotDumpable'),
    'pid_reuse': (5, 'runtime/container.cc', '== impl->record.start_time', '> 0', 'attack', '*AReusedPidIsNotSignalled'),
    'boot_id': (43, 'runtime/container.cc', 'impl->record.boot_id == BootId()', 'true', 'image_attack', '*ARecordOfAnotherBoot*'),
    'passwd_fifo': (15, 'runtime/init/find_program.cc', 'O_RDONLY | O_NONBLOCK | O_NOCTTY', 'O_RDONLY | O_NOCTTY',
                    'image_attack', '*APasswdThatIsNoFile*'),
    'sysctl': (22, 'lib/oci/check_sysctl.cc', 'return Wrong(at, "is not in a separate kernel namespace");', 'return absl::OkStatus();',
               'image_attack', '*ASysctlOfTheHost*'),
    'hook_timeout': (38, 'runtime/hooks.cc', '::kill(-child.pid(), SIGKILL);', '', 'hooks', '*AHookThatHangs*'),
}


def say(*words):
    print(*words, flush=True)


def write(path, text):
    with open(path, 'w') as file:
        file.write(text)


def build(tree):
    return subprocess.run(['ninja', '-j3', '-C', os.path.join(tree, 'build/release'), 'gantry-runtime'],
                          capture_output=True, text=True)


def attack(tree, tests, program, only):
    command = ['timeout', '-k', '5', '90', 'unshare', '-n', '-m', os.path.join(tests, f'runtime_{program}_test'),
               f'--gtest_filter={only}', '--gtest_brief=1']
    environment = {**os.environ, 'GANTRY_BIN': os.path.join(tree, 'build/release/bin'), 'GANTRY_SOURCE': tree}
    return subprocess.run(command, capture_output=True, text=True, errors='replace', env=environment)


def main(tree, tests, *names):
    lived = []
    for name in names or MUTANTS:
        rule, file, old, new, program, only = MUTANTS[name]
        paths = [os.path.join(tree, one) for one in file.split()]
        originals = [open(path).read() for path in paths]
        changed = []
        for original, before, after in zip(originals, old.split('|||'), new.split('|||')):
            if original.count(before) == 1:
                changed.append(original.replace(before, after))
        if len(changed) != len(paths):
            say(f'{name}: {file} is not as the table has it; mend the table')
            lived.append(name)
            continue
        try:
            for path, text in zip(paths, changed):
                write(path, text)
            made = build(tree)
            if made.returncode != 0:
                say(f'{name}: does not build: {made.stdout[-600:]}')
                lived.append(name)
                continue
            died = attack(tree, tests, program, only).returncode != 0
            say(f'{name} (rule {rule}): {"noticed by" if died else "NOT NOTICED by"} {program}_test {only}')
            if not died:
                lived.append(name)
        finally:
            for path, original in zip(paths, originals):
                write(path, original)
    say(f'{len(names or MUTANTS)} mutants, {len(lived)} lived: {" ".join(lived)}')
    return 1 if lived else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
