#!/usr/bin/env python3
"""Every rule of lint.py finds what it is for, and nothing in a clean tree."""
import os
import shutil
import subprocess
import tempfile
import tomllib
import unittest

import lint

HERE = os.path.dirname(os.path.abspath(__file__))

# What a file that rooms.toml excepts from a rule does.
EXCEPTED = {
    'exceptions': 'void Load() {\n  try {\n  } catch (const int&) {\n  }\n}\n',
    'sleeps': 'void Wait() { ::usleep(1); }\n',
    'filesystem': 'std::filesystem::path path;\n',
}

CLEAN = {
    'README.md': '[the runtime](runtime/README.md)\n',
    'runtime/README.md': 'x\n',
    'runtime/kernel.cc': '#include "runtime/kernel.h"\n\n#include "lib/base/status.h"\n\n'
                         'int Step() { return FAILPOINT("runtime.create.before_clone"); }\n',
    'runtime/kernel.h': '#pragma once\nint Step();\n',
    'lib/README.md': 'x\n',
    'lib/base/status.h': '#pragma once\n',
    'lib/base/status_test.cc': '#include "lib/testing/status_matchers.h"\n',
    'lib/testing/status_matchers.h': '#pragma once\n',
    'protos/README.md': 'x\n',
    'protos/gantry/engine/v1/engine.proto':
        'syntax = "proto3";\npackage gantry.engine.v1;\n'
        'enum State { STATE_UNSPECIFIED = 0; }\n',
    'services/gateway/README.md': 'x\n',
    'services/image/README.md': 'x\n',
    'shim/README.md': 'x\n',
    'snapshotter/README.md': 'x\n',
    'snapshotter/snapshotter.h': '#pragma once\n',
    'snapshotter/store.h': '#pragma once\n',
    'services/engine/README.md': 'x\n',
    'services/engine/network/README.md': 'x\n',
    'services/engine/network/network.h': '#pragma once\n',
    'services/engine/engine.cc': '#include "services/engine/network/network.h"\n'
                                 '#include "snapshotter/snapshotter.h"\n',
    'tests/README.md': 'x\n',
}


class LintTest(unittest.TestCase):

    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        subprocess.run(['git', 'init', '-q', self.root], check=True)
        os.makedirs(os.path.join(self.root, 'tests/lint'))
        shutil.copy(os.path.join(HERE, 'rooms.toml'), os.path.join(self.root, 'tests/lint'))
        shutil.copy(os.path.join(HERE, '../../.clang-format'), self.root)
        for name, text in CLEAN.items():
            self.write(name, text)
        with open(os.path.join(HERE, 'rooms.toml'), 'rb') as file:
            rooms = tomllib.load(file)
        for rule, text in EXCEPTED.items():
            for name in rooms[rule]:
                self.write(name, text)

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as file:
            file.write(text)

    def findings(self, rule, build=None):
        tree = lint.Tree(self.root, build)
        lint.rules()[rule](tree)
        return tree.findings

    def expect(self, rule, part, build=None):
        found = self.findings(rule, build)
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def test_a_clean_tree_has_no_findings(self):
        for rule in lint.rules():
            self.assertEqual(self.findings(rule), [], rule)

    def test_an_arrow_that_points_up(self):
        self.write('lib/base/text.cc', '#include "runtime/kernel.h"\n')
        self.expect('includes', 'lib/base/text.cc:1: includes: room lib/base must not')

    def test_the_runtime_does_not_see_grpc(self):
        self.write('runtime/main.cc', '#include "lib/rpc/daemon.h"\n')
        self.expect('includes', 'room lib/rpc')

    def test_another_component_is_seen_by_its_interface_only(self):
        self.write('services/engine/engine.cc', '#include "snapshotter/store.h"\n')
        self.expect('includes', 'snapshotter/store.h')

    def test_testing_headers_are_for_tests(self):
        self.write('snapshotter/main.cc', '#include "lib/testing/status_matchers.h"\n')
        self.expect('includes', 'for tests only')

    def test_a_folder_that_is_no_room(self):
        self.write('stuff/things.cc', '\n')
        self.expect('includes', 'stuff/things.cc: includes: is in no room')

    def test_a_program_that_links_too_much(self):
        self.write('build/build.ninja',
                   'build bin/gantry-runtime: LINK a.o\n  LINK_LIBRARIES = x.a  /lib/libgrpc.a\n'
                   'build bin/gantryd: LINK b.o\n  LINK_LIBRARIES = /lib/libgrpc.a\n')
        self.expect('links', 'libgrpc', os.path.join(self.root, 'build'))

    def test_a_thread_in_the_runtime(self):
        self.write('runtime/fast.cc', 'std::thread helper;\n')
        self.expect('threads', 'runtime/fast.cc:1')

    def test_exceptions_filesystem_and_sleeps(self):
        self.write('runtime/a.cc', 'void F() { throw 1; }  // throw\n')
        self.expect('words', 'runtime/a.cc:1: exceptions')
        self.write('runtime/a.cc', 'std::filesystem::path p;\n')
        self.expect('words', 'filesystem')
        self.write('runtime/a.cc', '// sleeps: ::usleep(1)\nvoid F() { ::usleep(1); }\n')
        self.expect('words', 'runtime/a.cc:2: sleeps')

    def test_an_exception_to_a_rule_that_nobody_needs(self):
        self.write('lib/config/config.cc', '\n')
        self.expect('words', 'needs no exception any more')

    def test_an_unguarded_header(self):
        self.write('runtime/kernel.h', 'int Step();\n')
        self.expect('headers', 'runtime/kernel.h')

    def test_unformatted_code(self):
        self.write('runtime/kernel.h', '#pragma once\nint   Step( );\n')
        self.expect('format', 'runtime/kernel.h:2')

    def test_a_long_file_is_a_warning(self):
        self.write('runtime/long.cc', '\n' * 401)
        tree = lint.Tree(self.root)
        lint.check_length(tree)
        self.assertEqual(tree.findings, [])
        self.assertIn('runtime/long.cc has 401 lines', tree.warnings[0])

    def test_failpoints(self):
        self.write('runtime/twice.cc', 'auto a = FAILPOINT("runtime.create.before_clone");\n')
        self.expect('failpoints', 'is used in runtime/kernel.cc:5 too')
        self.write('runtime/twice.cc', 'auto a = FAILPOINT("runtime.create");\n')
        self.expect('failpoints', 'not of the form')
        self.write('runtime/twice.cc', 'auto a = FAILPOINT("shim.create.before_clone");\n')
        self.expect('failpoints', 'name of its room')

    def test_paths_of_a_machine(self):
        self.write('runtime/README.md', 'see /wor' + 'k/main/notes\n')
        self.expect('machine_paths', 'runtime/README.md:1')

    def test_enums_of_our_protos(self):
        self.write('protos/gantry/engine/v1/engine.proto',
                   'package gantry.engine.v1;\nenum Mode { OFF = 0; }\n')
        self.expect('protos', 'enum Mode')
        self.write('protos/gantry/engine/v1/engine.proto', 'package other;\n')
        self.expect('protos', 'package must be gantry.engine.v1')

    def test_a_room_without_readme(self):
        os.remove(os.path.join(self.root, 'runtime/README.md'))
        self.write('README.md', 'x\n')
        self.expect('readmes', 'runtime: readmes')

    def test_a_link_that_leads_nowhere(self):
        self.write('README.md', '[a](https://x.example/) [b](runtime/gone.md#part)\n')
        self.expect('markdown_links', 'runtime/gone.md')


if __name__ == '__main__':
    unittest.main()
