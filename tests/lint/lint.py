#!/usr/bin/env python3
"""Checks of the source tree that no compiler makes. Run by ctest (label lint), or by hand:

    tests/lint/lint.py [--root DIR] [--build BUILD_DIR] [RULE ...]

Prints one line per finding, `file:line: rule: what is wrong; what to do`, and ends with 1 if there
is any. Lines that begin with `warning:` do not count. The rules are the functions `check_*` below; the tables
they read (rooms, arrows, places where an exception is allowed) are in rooms.toml.
"""
import argparse
import concurrent.futures
import fnmatch
import os
import re
import subprocess
import sys
import tomllib

LONG_FILE_LINES = 400
CPP = ('.h', '.cc')


class Tree:
    """The tracked files below `root`, each read once."""

    def __init__(self, root, build=None):
        self.root = root
        self.build = build
        listed = subprocess.run(['git', '-C', root, 'ls-files', '-z', '--cached', '--others',
                                 '--exclude-standard'], check=True, capture_output=True)
        names = sorted(set(listed.stdout.decode().split('\0')) - {''})
        self.files = [name for name in names if os.path.isfile(os.path.join(root, name))]
        self.cpp = [name for name in self.files if name.endswith(CPP)]
        with open(os.path.join(root, 'tests/lint/rooms.toml'), 'rb') as table:
            self.tables = tomllib.load(table)
        self.findings = []
        self.warnings = []
        self._text = {}

    def text(self, name):
        if name not in self._text:
            with open(os.path.join(self.root, name), 'rb') as file:
                self._text[name] = file.read().decode('utf-8', 'replace')
        return self._text[name]

    def lines(self, name):
        return enumerate(self.text(name).split('\n'), 1)

    def code_lines(self, name):
        """Lines with comments and the insides of string literals taken out."""
        for number, line in self.lines(name):
            line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
            yield number, line.split('//')[0]

    def report(self, rule, name, line, message):
        where = f'{name}:{line}' if line else name
        self.findings.append(f'{where}: {rule}: {message}')

    def warn(self, message):
        self.warnings.append(f'warning: {message}')

    def room(self, path):
        """The room a file or a header belongs to, or ''."""
        fitting = [room for room in self.tables['rooms'] if path.startswith(room + '/')]
        if fitting:
            return max(fitting, key=len)
        if path.endswith('.pb.h'):
            return 'protos'
        return ''


def is_test(name):
    return (name.endswith(('_test.cc', '_fuzz.cc', '_bench.cc', '_suite.h')) or '/testing/' in name
            or name.startswith('tests/'))


def check_includes(tree):
    """Arrows between rooms point down, along the table."""
    rooms = tree.tables['rooms']
    for name in tree.cpp:
        own = tree.room(name)
        if not own:
            tree.report('includes', name, 0, 'is in no room; add its folder to rooms.toml')
            continue
        for number, line in tree.lines(name):
            match = re.match(r'#include "([^"]+)"', line)
            other = tree.room(match.group(1)) if match else ''
            if not other or other == own or own == 'tests':
                continue
            header = match.group(1)
            allowed = rooms[own]
            if other in allowed or other.split('/')[0] in allowed:
                if other == 'lib/testing' and not is_test(name):
                    tree.report('includes', name, number, f'"{header}" is for tests only')
                elif '/testing/' in header and not is_test(name):
                    tree.report('includes', name, number, f'"{header}" is for tests only')
                continue
            if is_test(name) and (other == 'lib/testing' or '/testing/' in header):
                continue
            if is_test(name) and other == 'tests' and header.startswith('tests/support/'):
                continue
            if header in tree.tables['interfaces'].get(other, []) and own.split('/')[0] != 'lib':
                continue
            tree.report('includes', name, number,
                        f'room {own} must not include "{header}" (room {other}); '
                        'use what is below it, or its interface header')


def check_links(tree):
    """Programs that must stay small do not link what they must not. Needs a build folder."""
    graph = os.path.join(tree.build, 'build.ninja') if tree.build else ''
    if not graph or not os.path.exists(graph):
        return
    program = None
    with open(graph) as rules_file:
        for line in rules_file:
            built = re.match(r'build ([^\s|:]+)', line)
            if built:
                program = built.group(1)
            elif line.startswith('  LINK_LIBRARIES') and program in tree.tables['links']:
                for library in line.split()[2:]:
                    for forbidden in tree.tables['links'][program]:
                        if forbidden in os.path.basename(library):
                            tree.report('links', program, 0,
                                        f'links {library}; see [links] in tests/lint/rooms.toml')


def check_threads(tree):
    """Rooms that fork start no threads."""
    pattern = re.compile(r'\bstd::j?thread\b|\bpthread_create\(|\bstd::async\(')
    for name in tree.cpp:
        if tree.room(name) not in tree.tables['threads']['forbidden'] or is_test(name):
            continue
        for number, line in tree.code_lines(name):
            if pattern.search(line):
                tree.report('threads', name, number,
                            'this room stays single-threaded until exec (STYLE, section 7)')


def check_words(tree):
    """No exceptions, no std::filesystem, no sleeps, outside the places the table names."""
    rules = [
        ('exceptions', re.compile(r'\bthrow\b(?!\(\))|\btry \{|\bcatch \('),
         'exceptions do not cross our code; return an absl::Status'),
        ('filesystem', re.compile(r'std::filesystem'),
         'paths are resolved by descriptor; use lib/sys/file.h'),
        ('sleeps', re.compile(r'\bSleepFor\(|\busleep\(|\bnanosleep\(|\bsleep_for\(|::sleep\('),
         'nobody sleeps "for a moment"; wait for the descriptor, the condition or the deadline'),
    ]
    used = set()
    for name in tree.cpp:
        for number, line in tree.code_lines(name):
            for rule, pattern, advice in rules:
                if not pattern.search(line):
                    continue
                if name in tree.tables[rule]:
                    used.add((rule, name))
                else:
                    tree.report(rule, name, number, advice)
    for rule, _, _ in rules:
        for name in tree.tables[rule]:
            if (rule, name) not in used:
                tree.report(rule, 'tests/lint/rooms.toml', 0,
                            f'"{name}" needs no exception any more; take it out')


def check_headers(tree):
    """Every header is guarded by #pragma once."""
    for name in tree.cpp:
        if name.endswith('.h') and '#pragma once' not in tree.text(name):
            tree.report('headers', name, 0, 'has no #pragma once')


def check_format(tree):
    """clang-format has nothing to change."""
    def differing(names):
        done = subprocess.run(['clang-format-14', '--dry-run', '-Werror', '-ferror-limit=1', *names],
                              cwd=tree.root, capture_output=True, text=True)
        return done.stderr if done.returncode != 0 else ''

    batches = [tree.cpp[i:i + 12] for i in range(0, len(tree.cpp), 12)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for output in pool.map(differing, batches):
            places = re.findall(r'^(\S+?):(\d+):\d+: error:', output, re.M)
            reported = set()
            for name, line in places:
                if name not in reported:
                    tree.report('format', name, line, 'is not formatted; run clang-format -i')
                reported.add(name)
            if output and not places:
                tree.report('format', 'clang-format', 0, output.strip()[:300])


def check_length(tree):
    """Long files want splitting. A warning: some tables and command lines are better whole."""
    for name in tree.cpp:
        count = tree.text(name).count('\n')
        if count > LONG_FILE_LINES:
            tree.warn(f'{name} has {count} lines; does it hold two subjects?')


def check_failpoints(tree):
    """room.operation.step, once each, in a .cc file; every product room's name is its own."""
    seen = {}
    for name in tree.cpp:
        if is_test(name) or name == 'lib/base/failpoint.h':
            continue
        for number, line in tree.lines(name):
            for point in re.findall(r'FAILPOINT\("([^"]*)"\)', line.split('//')[0]):
                where = f'{name}:{number}'
                if not re.fullmatch(r'[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){2}', point):
                    tree.report('failpoints', name, number,
                                f'"{point}" is not of the form room.operation.step')
                elif point.split('.')[0] not in [*name.split('/'), 'gantry']:
                    tree.report('failpoints', name, number,
                                f'"{point}" does not begin with the name of its room')
                if point in seen:
                    tree.report('failpoints', name, number, f'"{point}" is used in {seen[point]} too')
                if not name.endswith('.cc'):
                    tree.report('failpoints', name, number, f'"{point}" is in a header')
                seen.setdefault(point, where)


def check_machine_paths(tree):
    """Nothing refers to the machine it was written on."""
    # Split, so that this file passes its own test.
    pattern = re.compile(r'(?<![\w.>/])/' + r'(work/(main|shared|\.)|farm\b)|/tmp/' + r'g/')
    for name in tree.files:
        if name.startswith('tests/contracts/tables/'):
            continue
        for number, line in tree.lines(name):
            if pattern.search(line):
                tree.report('machine_paths', name, number, 'names a path of a developer\'s machine')


def check_protos(tree):
    """In our own protos: package is the path, the zero of an enum is <NAME>_UNSPECIFIED."""
    for name in tree.files:
        match = re.fullmatch(r'protos/(gantry/[a-z]+/v\d+)/[a-z_]+\.proto', name)
        if not match:
            continue
        text = tree.text(name)
        package = match.group(1).replace('/', '.')
        if not re.search(rf'^package {re.escape(package)};', text, re.M):
            tree.report('protos', name, 0, f'its package must be {package}')
        exempt = tree.tables['enums']
        for enum, body in re.findall(r'\benum (\w+) \{([^}]*)\}', text):
            zero = re.search(r'(\w+)\s*=\s*0\b', body)
            if enum not in exempt and (not zero or not zero.group(1).endswith('_UNSPECIFIED')):
                tree.report('protos', name, 0, f'the zero of enum {enum} must end with _UNSPECIFIED')


def check_readmes(tree):
    """Rooms explain themselves."""
    folders = {os.path.dirname(name) for name in tree.files}
    folders |= {parent for folder in folders for parent in _parents(folder)}
    for wanted in tree.tables['readmes']['required']:
        for folder in sorted(folders):
            same_depth = folder.count('/') == wanted.count('/')
            if not same_depth or not fnmatch.fnmatch(folder, wanted):
                continue
            if f'{folder}/README.md' not in tree.files:
                tree.report('readmes', folder, 0, 'has no README.md')
    if 'README.md' not in tree.files:
        tree.report('readmes', '.', 0, 'has no README.md')


def _parents(folder):
    while '/' in folder:
        folder = folder.rsplit('/', 1)[0]
        yield folder


def check_markdown_links(tree):
    """Links between our pages lead somewhere."""
    for name in tree.files:
        if not name.endswith('.md'):
            continue
        for number, line in tree.lines(name):
            for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', line):
                if '://' in target or target.startswith('mailto:'):
                    continue
                path = os.path.normpath(os.path.join(tree.root, os.path.dirname(name), target))
                if not os.path.exists(path):
                    tree.report('markdown_links', name, number, f'"{target}" is not there')


def rules():
    return {name.removeprefix('check_'): check for name, check in globals().items()
            if name.startswith('check_')}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('--root', default=os.path.dirname(os.path.dirname(here)))
    parser.add_argument('--build', help='a build folder, for the rule `links`')
    parser.add_argument('--fix-format', action='store_true', help='run clang-format -i first')
    parser.add_argument('rules', nargs='*', help=', '.join(rules()))
    options = parser.parse_args()
    tree = Tree(options.root, options.build)
    if options.fix_format:
        subprocess.run(['clang-format-14', '-i', *tree.cpp], cwd=options.root, check=True)
    for name in options.rules or rules():
        rules()[name](tree)
    for line in tree.warnings + tree.findings:
        print(line)
    print(f'lint: {len(tree.files)} files, {len(tree.findings)} findings, '
          f'{len(tree.warnings)} warnings')
    return 1 if tree.findings else 0


if __name__ == '__main__':
    sys.exit(main())
